//! Connections that are kept, and sessions that are resumed.

use crate::common::agent::{SOON, Site};
use crate::common::certificates::Kind;

use super::{MESSAGE, Server, certificates};

#[test]
fn a_cached_connection_keeps_its_tls() {
    let site = Site::new("");
    let certificates = certificates(&site);
    let server = Server::start(&site, &certificates, Kind::Good, "");
    let keys = format!(
        "workers = 1\ndefault_transport = \"inet:localhost:{}\"\n[transport.lmtp]\ninet_protocols = \"ipv4\"\n\
         tls_security_level = \"secure\"\ntls_CAfile = \"{}\"\n",
        server.port,
        certificates.authority.display()
    );
    site.configure(&keys);
    let agent = site.start_agent();
    for number in 1..=5 {
        site.sendmail(&["b@example.org"], MESSAGE);
        site.wait_for_lines(number, &["to=<b@example.org>", "status=sent"], SOON);
    }
    let established = site.lines_with(&["Verified TLS connection established to localhost[127.0.0.1]:"]);
    assert_eq!(established.len(), 1, "{}", site.log());
    // The other one is the agent's, which looks at its start whether bounces would go anywhere.
    assert_eq!(server.handle.counts().connections, 2);
    assert_eq!(server.mail_of("b@example.org"), 5);
    agent.stop();
}

#[test]
fn without_authorities_of_its_own_a_transport_trusts_those_of_the_system() {
    for (is_known, status) in
        [(true, "status=sent"), (false, "status=deferred (Server certificate not trusted: ")]
    {
        let site = Site::new("");
        let certificates = certificates(&site);
        let server = Server::start(&site, &certificates, Kind::Good, "");
        let keys = format!(
            "default_transport = \"inet:localhost:{}\"\nbounce_nexthop = \"unix:/nonexistent/socket\"\n\
             [transport.lmtp]\ninet_protocols = \"ipv4\"\ntls_security_level = \"secure\"\n",
            server.port
        );
        site.configure(&keys);
        // The variable by which OpenSSL's programs, and we, find what the system trusts.
        let of_system =
            if is_known { &certificates.authority } else { &certificates.of(Kind::SelfSigned).chain };
        let of_system = of_system.display().to_string();
        let agent = site.start_agent_with(&[("SSL_CERT_FILE", &of_system)]);
        site.sendmail(&["b@example.org"], MESSAGE);
        site.wait_for_line(&["to=<b@example.org>", status], SOON);
        agent.stop();
    }
}
