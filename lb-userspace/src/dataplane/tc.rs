//! Filters of tc on interfaces' egress hook, over rtnetlink: classifiers in the qdisc `clsact`, as every kernel has them.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkLayerType, LinkMessage},
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
        sockopt::ReceiveTimeout,
    },
    time::{TimeVal, TimeValLike as _},
};

/// A BPF classifier on an interface's way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) ifindex: u32,
    pub(super) priority: u16,
    /// Tells filters of one priority apart.
    pub(super) handle: u32,
    /// Whatever who attached it calls it.
    pub(super) name: String,
    /// Id of its program; 0 where the kernel does not say.
    pub(super) program: u32,
}

/// The filters on an interface's way out; those that are no BPF classifiers under an empty name.
pub(super) fn filters(ifindex: u32) -> io::Result<Vec<Filter>> {
    Ok(list(ifindex, egress())?.messages.iter().filter_map(filter).collect())
}

/// Attaches a program under `filter`'s name, or gives the filter that is there this program.
pub(super) fn set_filter(filter: &Filter, program: BorrowedFd<'_>, is_new: bool) -> io::Result<()> {
    let mut message = addressed(filter);
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    let options = [
        TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32),
        TcFilterBpfOption::ProgName(filter.name.clone()),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    message.attributes.push(TcAttribute::Options(options.map(TcOption::Bpf).into()));
    let exclusive = if is_new { NLM_F_EXCL } else { 0 };
    change(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE | exclusive)
}

pub(super) fn remove_filter(filter: &Filter) -> io::Result<()> {
    let mut message = addressed(filter);
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    change(RouteNetlinkMessage::DelTrafficFilter(message), 0)
}

/// What there was in the place of `clsact`.
pub(super) enum Place {
    /// Nothing; now it is there.
    Empty,
    Clsact,
    /// Another qdisc, which has no filters for what leaves.
    Other(String),
}

/// Sees to it that the interface has `clsact`, if there is room for it.
pub(super) fn add_clsact(ifindex: u32) -> io::Result<Place> {
    match change(RouteNetlinkMessage::NewQueueDiscipline(clsact(ifindex)), NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) => Ok(Place::Empty),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            let kind = kind_in_its_place(ifindex)?.unwrap_or_default();
            Ok(if kind == CLSACT { Place::Clsact } else { Place::Other(kind) })
        }
        Err(error) => Err(error),
    }
}

/// The kind of the qdisc where `clsact` would be.
fn kind_in_its_place(ifindex: u32) -> io::Result<Option<String>> {
    let mut message = TcMessage::default();
    message.header.index = ifindex.cast_signed();
    let answers = exchange(RouteNetlinkMessage::GetQueueDiscipline(message), NLM_F_DUMP)?;
    // The kernel may list those of all interfaces.
    Ok(answers.messages.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewQueueDiscipline(qdisc)
            if qdisc.header.index == ifindex.cast_signed() && qdisc.header.parent == TcHandle::CLSACT =>
        {
            qdisc.attributes.iter().find_map(|attribute| match attribute {
                TcAttribute::Kind(kind) => Some(kind.clone()),
                _ => None,
            })
        }
        _ => None,
    }))
}

/// Removes `clsact` if it holds no filter, neither for what leaves nor for what comes in.
pub(super) fn remove_empty_clsact(ifindex: u32) -> io::Result<()> {
    let ingress = TcHandle { minor: TcHandle::MIN_INGRESS, ..TcHandle::CLSACT };
    // What is not understood is a filter, too.
    let is_empty = |parent| list(ifindex, parent).map(|all| all.messages.is_empty() && all.strange == 0);
    if is_empty(egress())? && is_empty(ingress)? {
        return change(RouteNetlinkMessage::DelQueueDiscipline(clsact(ifindex)), 0);
    }
    Ok(())
}

/// Whether its frames have Ethernet headers.
pub(super) fn is_ethernet(ifindex: u32) -> io::Result<bool> {
    let mut link = LinkMessage::default();
    link.header.index = ifindex;
    let answers = exchange(RouteNetlinkMessage::GetLink(link), 0)?;
    Ok(answers.messages.iter().any(|answer| {
        matches!(answer, RouteNetlinkMessage::NewLink(link) if link.header.link_layer_type == LinkLayerType::Ether)
    }))
}

fn list(ifindex: u32, parent: TcHandle) -> io::Result<Answers> {
    let mut message = TcMessage::default();
    (message.header.index, message.header.parent) = (ifindex.cast_signed(), parent);
    exchange(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP)
}

/// `None`: the head of a priority's filters, which is none itself.
fn filter(answer: &RouteNetlinkMessage) -> Option<Filter> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = answer else { return None };
    let handle = u32::from(message.header.handle);
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options.as_slice()),
        _ => None,
    });
    let mut filter = Filter {
        ifindex: message.header.index.cast_unsigned(),
        priority: (message.header.info >> 16) as u16,
        handle,
        name: String::new(),
        program: 0,
    };
    for option in options.unwrap_or_default() {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => filter.name.clone_from(name),
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.program = *id,
            _ => {}
        }
    }
    (handle != 0).then_some(filter)
}

fn addressed(filter: &Filter) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = filter.ifindex.cast_signed();
    message.header.parent = egress();
    message.header.handle = filter.handle.into();
    message.header.info = u32::from(filter.priority) << 16 | u32::from(ALL_PROTOCOLS.to_be());
    message
}

fn clsact(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = ifindex.cast_signed();
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { minor: 0, ..TcHandle::CLSACT };
    message.attributes.push(TcAttribute::Kind(CLSACT.to_owned()));
    message
}

fn egress() -> TcHandle {
    TcHandle { minor: TcHandle::MIN_EGRESS, ..TcHandle::CLSACT }
}

fn change(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    exchange(message, NLM_F_ACK | flags).map(drop)
}

#[derive(Default)]
struct Answers {
    messages: Vec<RouteNetlinkMessage>,
    /// Messages that this library does not understand: of somebody else's filter, for instance.
    strange: usize,
}

/// Asks, and takes all that the kernel answers.
fn exchange(message: RouteNetlinkMessage, flags: u16) -> io::Result<Answers> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    // The kernel answers at once. Should it ever not, nobody waits for good.
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(1))?;
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | flags;
    request.finalize();
    let mut buffer = vec![0; request.buffer_len()];
    request.serialize(&mut buffer);
    // Not connected: a message without an address goes to the kernel.
    send(socket.as_raw_fd(), &buffer, MsgFlags::empty())?;
    let has_end = flags & (NLM_F_DUMP | NLM_F_ACK) != 0;
    let mut answers = Answers::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((message, behind)) = split(rest) {
            rest = behind;
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
                answers.strange += 1;
                continue;
            };
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => answers.messages.push(inner),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                _ => {}
            }
        }
        if !has_end {
            return Ok(answers);
        }
    }
}

/// The first message of several, and the rest.
fn split(messages: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(messages.get(..4)?.try_into().ok()?) as usize;
    let message = messages.get(..length).filter(|_| length >= HEADER)?;
    Some((message, messages.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

const CLSACT: &str = "clsact";
/// `struct nlmsghdr`
const HEADER: usize = 16;
/// `ETH_P_ALL`
const ALL_PROTOCOLS: u16 = 0x0003;
