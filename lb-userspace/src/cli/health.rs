//! How a service's backends are checked, as options: the keys of `[service.health]` that the API takes.

use crate::api::v1;

/// Each is a key of the configuration file, with the same values. Those of some types of checks are for these alone.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Health check")]
pub(super) struct HealthSettings {
    /// How backends are checked: none, tcp, tls, http, https, grpc, dns, icmp, mysql, postgres, redis, agent
    #[arg(long, value_name = "TYPE")]
    health_type: Option<String>,
    /// How checks get to backends: address, or vip for the way of their traffic
    #[arg(long, value_name = "WAY")]
    health_via: Option<String>,
    /// Port to check instead of the backend's own
    #[arg(long, value_name = "PORT")]
    health_port: Option<i64>,
    /// Address to check instead of the backend's own
    #[arg(long, value_name = "ADDRESS")]
    health_address: Option<String>,
    /// Address of this host to check from
    #[arg(long, value_name = "ADDRESS")]
    health_source: Option<String>,
    /// Time between two checks
    #[arg(long, value_name = "TIME")]
    health_interval: Option<String>,
    /// The same while a verdict is changing
    #[arg(long, value_name = "TIME")]
    health_fast_interval: Option<String>,
    /// The same while the backend is unhealthy
    #[arg(long, value_name = "TIME")]
    health_down_interval: Option<String>,
    /// Limit for a whole check
    #[arg(long, value_name = "TIME")]
    health_timeout: Option<String>,
    /// Passed checks in a row that reinstate a backend
    #[arg(long, value_name = "N")]
    health_rise: Option<i64>,
    /// Failed checks in a row that take a backend out
    #[arg(long, value_name = "N")]
    health_fall: Option<i64>,
    /// http, https: path that is asked for
    #[arg(long, value_name = "PATH")]
    health_path: Option<String>,
    /// http, https: Host header
    #[arg(long, value_name = "HOST")]
    health_host: Option<String>,
    /// http, https: method
    #[arg(long, value_name = "METHOD")]
    health_method: Option<String>,
    /// http, https: a further header, "X-Probe: ballast"; may be given several times, "" for none
    #[arg(long = "health-header", value_name = "HEADER")]
    health_headers: Option<Vec<String>>,
    /// http, https: statuses that pass, "200-299,304"
    #[arg(long, value_name = "STATUSES")]
    health_expect_status: Option<String>,
    /// http, https: text that has to be in the body
    #[arg(long, value_name = "TEXT")]
    health_expect_body: Option<String>,
    /// grpc, mysql, postgres, redis: whether to use TLS
    #[arg(long, value_name = "true|false")]
    health_tls: Option<bool>,
    /// With TLS: the name that the certificate has to be for
    #[arg(long, value_name = "NAME")]
    health_server_name: Option<String>,
    /// With TLS: whether the certificate has to be valid
    #[arg(long, value_name = "true|false")]
    health_verify: Option<bool>,
    /// mysql, postgres, redis: primary, replica, any
    #[arg(long, value_name = "ROLE")]
    health_role: Option<String>,
    /// mysql, postgres, redis: user to log in as (passwords are in files that the configuration names)
    #[arg(long, value_name = "USER")]
    health_user: Option<String>,
    /// postgres: database to log in to
    #[arg(long, value_name = "NAME")]
    health_database: Option<String>,
    /// mysql, postgres: how far a replica may be behind
    #[arg(long, value_name = "TIME")]
    health_max_lag: Option<String>,
    /// grpc: service whose health is asked
    #[arg(long, value_name = "NAME")]
    health_service: Option<String>,
    /// dns: name that is asked for
    #[arg(long, value_name = "NAME")]
    health_name: Option<String>,
    /// dns: A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TXT
    #[arg(long, value_name = "TYPE")]
    health_record: Option<String>,
    /// dns: noerror, nxdomain, refused, servfail, notimp
    #[arg(long, value_name = "CODE")]
    health_expect_rcode: Option<String>,
    /// dns: addresses that have to be among the answers; separated by commas, "" for any
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    health_expect_addresses: Option<Vec<String>>,
    /// agent: what is said before it answers
    #[arg(long, value_name = "TEXT")]
    health_send: Option<String>,
}

impl HealthSettings {
    /// `None` if none is given.
    pub(super) fn into_api(self) -> Option<v1::HealthSettings> {
        let settings = v1::HealthSettings {
            kind: self.health_type,
            via: self.health_via,
            port: self.health_port,
            address: self.health_address,
            source: self.health_source,
            interval: self.health_interval,
            fast_interval: self.health_fast_interval,
            down_interval: self.health_down_interval,
            timeout: self.health_timeout,
            rise: self.health_rise,
            fall: self.health_fall,
            path: self.health_path,
            host: self.health_host,
            method: self.health_method,
            headers: self.health_headers.map(super::change::list_of),
            expect_status: self.health_expect_status,
            expect_body: self.health_expect_body,
            tls: self.health_tls,
            server_name: self.health_server_name,
            verify: self.health_verify,
            role: self.health_role,
            user: self.health_user,
            database: self.health_database,
            max_lag: self.health_max_lag,
            service: self.health_service,
            name: self.health_name,
            record: self.health_record,
            expect_rcode: self.health_expect_rcode,
            expect_addresses: self.health_expect_addresses.map(super::change::list_of),
            send: self.health_send,
            // Files and programs of the daemon are for the configuration alone.
            ca_file: None,
            password_file: None,
            command: None,
        };
        (settings != v1::HealthSettings::default()).then_some(settings)
    }
}
