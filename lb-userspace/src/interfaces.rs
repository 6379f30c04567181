//! Interfaces of this network namespace, as its kernel knows them.

use nix::net::if_::if_indextoname;

/// What an interface is called now; `if7` if there is no number 7 any more.
pub(crate) fn name(index: u32) -> String {
    let name = if_indextoname(index).ok().and_then(|name| name.into_string().ok());
    // Of one that is gone nix returns an empty name, and no error.
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("if{index}"))
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn an_interface_has_its_name_and_one_that_is_gone_its_number() {
        assert_eq!(name(1), "lo");
        assert_eq!(name(0x7fff_fff0), "if2147483632");
    }
}
