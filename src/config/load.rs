//! From layers of given values to a [`Config`], or to everything that is wrong with them.
//!
//! - Owns: which transports exist, defaults that depend on other values, combinations that cannot work.
//! - Leaves to others: the values themselves (`keys`, `parse`), their sources (`layers`).
//! - Always true: it looks at every value before it gives up.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;

use super::Config;
use super::error::{ConfigError, Problem, Problems, nearest};
use super::habits::Habits;
use super::keys::{Given, Reader, Setting, Shape};
use super::known::{hint_for_top_key, hint_for_transport_key};
use super::layers::{Layered, Sources};
use super::parse::{self, is_host_name};
use super::routes::Nexthops;
use super::sasl::Sasl;
use super::secrets::Secrets;
use super::services::{SERVICES, tcp_port};
use super::timeouts::Timeouts;
use super::tls::Tls;
use super::transport::{self, BUILT_IN, Transport};
use crate::mail::{Protocol, TransportName};

/// The name of a host that has no usable one.
const NAMELESS: &str = "localhost";
/// The source of values that nobody gave.
const DEFAULT: &str = "default";

/// The values of a section, by key.
type Section = BTreeMap<String, Given>;

/// Reads all sources.
pub(super) fn load(sources: &Sources) -> Result<Config, ConfigError> {
    let mut problems = Problems::default();
    match Layered::read(sources, &mut problems) {
        Some(layered) => assemble(&layered, problems),
        None => problems.or(None),
    }
}

/// What holds where nothing is given.
pub(super) fn defaults() -> Result<Config, ConfigError> {
    assemble(&Layered::new(), Problems::default())
}

/// Completes the layers with defaults and reads every value.
fn assemble(layered: &Layered, mut problems: Problems) -> Result<Config, ConfigError> {
    let mut given = layered.given();
    refuse_values_for_sections(&given, &mut problems);
    let sections = take_sections(&mut given);
    fill_top(&mut given);

    let mut ports = Nexthops::default();
    let (mut settings, mut transports) = (Vec::new(), BTreeMap::new());
    for (name, section) in complete_sections(sections, &layered.transports_of_file, &mut problems) {
        // A port that cannot be read is a problem of its own; no nexthop has to suffer for it.
        let port = section.get("tcp_port").and_then(|given| parse::port(given).ok());
        ports.0.insert(name.clone(), port.unwrap_or(NonZeroU16::MIN));
        if let Some(transport) = read_transport(&name, section, &mut settings, &mut problems) {
            transports.insert(name, Arc::new(transport));
        }
    }
    let config = read_top(given, transports, ports, settings, &mut problems);
    problems.or(config)
}

/// Takes the sections of `transport` out of what was given, and leaves what is none.
fn take_sections(given: &mut Section) -> BTreeMap<String, Section> {
    match given.remove("transport").map(|given| given.shape) {
        Some(Shape::Table(sections)) => {
            let sections = sections.into_iter().filter_map(|(name, given)| match given.shape {
                Shape::Table(section) => Some((name, section)),
                _ => None,
            });
            sections.collect()
        }
        _ => BTreeMap::new(),
    }
}

/// Notes each transport that is a mere value.
fn refuse_values_for_sections(given: &Section, problems: &mut Problems) {
    let Some(transport) = given.get("transport") else { return };
    let no_section = |given: &&Given| !matches!(given.shape, Shape::Table(_));
    let mut refuse = |name: &str, given: &Given| {
        problems.push(Problem::of_value(name, given, "a section is needed here, as in [transport.lmtp]"));
    };
    if let Shape::Table(sections) = &transport.shape {
        for (name, given) in sections.iter().filter(|(_, given)| no_section(given)) {
            refuse(&format!("transport.{name}"), given);
        }
    } else {
        refuse("transport", transport);
    }
}

/// Finds which transports exist, and fills in what nobody gave for them: ports from services(5), then defaults.
fn complete_sections(
    mut sections: BTreeMap<String, Section>,
    of_file: &BTreeSet<String>,
    problems: &mut Problems,
) -> Vec<(TransportName, Section)> {
    for name in BUILT_IN {
        sections.entry(name.to_owned()).or_default();
    }
    let services = std::fs::read_to_string(SERVICES).unwrap_or_default();
    let mut complete = Vec::new();
    for (name, mut section) in sections {
        let parsed = match existing_transport(&name, &section, of_file) {
            Ok(parsed) => parsed,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let protocol = protocol_of(&name, &section);
        if let Some(port) = tcp_port(&services, &protocol.to_string()) {
            fill(&mut section, "tcp_port", &port.to_string(), SERVICES);
        }
        for key in Transport::keys() {
            fill(&mut section, key.name, transport::default_of(&name, protocol, key), DEFAULT);
        }
        complete.push((parsed, section));
    }
    complete
}

/// Fills in a value that nobody gave.
fn fill(section: &mut Section, key: &str, value: &str, source: &str) {
    if !section.contains_key(key) {
        section.insert(key.to_owned(), Given::of_text(value, source));
    }
}

/// A built-in transport, one that the file names, or one whose protocol was given.
fn existing_transport(
    name: &str,
    section: &Section,
    of_file: &BTreeSet<String>,
) -> Result<TransportName, Problem> {
    let exists = BUILT_IN.contains(&name) || of_file.contains(name) || section.contains_key("protocol");
    let what = match name.parse::<TransportName>() {
        Ok(parsed) if exists => return Ok(parsed),
        Ok(_) => {
            let known = BUILT_IN.iter().copied().chain(of_file.iter().map(String::as_str));
            let hint = nearest(name, known).map(|meant| format!("; did you mean {meant}?"));
            format!(
                "there is no transport {name:?}; one that the file does not name comes into being by its \
                 protocol (LASTMILE_TRANSPORT__{}__PROTOCOL){}",
                name.to_ascii_uppercase(),
                hint.unwrap_or_default()
            )
        }
        Err(what) => what.to_owned(),
    };
    Err(match section.iter().next() {
        Some((key, given)) => Problem::of_value(&format!("transport.{name}.{key}"), given, what),
        None => Problem::general(format!("transport.{name}: {what}")),
    })
}

/// What a transport speaks, as far as its defaults depend on it; the value is checked when all are read.
fn protocol_of(name: &str, section: &Section) -> Protocol {
    let given = section.get("protocol").and_then(|given| given.text().ok()?.parse().ok());
    given.unwrap_or(if name == "smtp" { Protocol::Smtp } else { Protocol::Lmtp })
}

/// Fills in what nobody gave at the top.
fn fill_top(given: &mut Section) {
    let is_missing =
        |given: &Section, key: &str| given.get(key).is_none_or(|given| given.text().is_ok_and(str::is_empty));
    if is_missing(given, "myhostname") {
        let (name, source) = system_host_name();
        given.insert("myhostname".to_owned(), Given::of_text(&name, source));
    }
    if is_missing(given, "myorigin") {
        let own_name = given.get("myhostname").and_then(|given| parse::host_name(given).ok());
        // Where myhostname is wrong, that alone is the problem.
        let name = own_name.unwrap_or_else(|| NAMELESS.to_owned());
        given.insert("myorigin".to_owned(), Given::of_text(&name, "myhostname"));
    }
    for key in Config::KEYS {
        fill(given, key.name, key.default, DEFAULT);
    }
}

/// The name that the kernel has for this host, and its source.
fn system_host_name() -> (String, &'static str) {
    let system = rustix::system::uname();
    match system.nodename().to_str() {
        Ok(name) if is_host_name(name) => (name.to_ascii_lowercase(), "host name"),
        _ => (NAMELESS.to_owned(), "default; this host has no usable name"),
    }
}

/// Reads one transport; `None` once its problems are noted.
fn read_transport(
    name: &TransportName,
    section: Section,
    settings: &mut Vec<Setting>,
    problems: &mut Problems,
) -> Option<Transport> {
    let mut reader = Reader::new(format!("transport.{name}."), section, problems);
    let timeouts = Timeouts::read(&mut reader);
    let tls = Tls::read(&mut reader, Some(Vec::new()));
    let sasl = Sasl::read(&mut reader, Some(None));
    // The listing has the transport's own keys first.
    let of_parts = std::mem::take(&mut reader.settings);
    let (name_given, secrets, habits) =
        (Some(name.clone()), Some(Secrets::default()), Some(Habits::default()));
    let transport = Transport::read(&mut reader, name_given, timeouts, tls, sasl, secrets, habits);
    let own = settings.len();
    settings.append(&mut reader.settings);
    settings.extend(of_parts);
    for (key, given) in std::mem::take(&mut reader.given) {
        let path = format!("transport.{name}.{key}");
        reader.problems.push(Problem::unknown(&path, &given, &hint_for_transport_key(&key)));
    }
    for (key, what) in transport.iter().flat_map(Transport::contradictions) {
        problems.push(contradiction(&settings[own..], &format!("transport.{name}.{key}"), &what));
    }
    transport
}

/// Reads what stands at the top, with all transports known.
fn read_top(
    given: Section,
    transports: BTreeMap<TransportName, Arc<Transport>>,
    ports: Nexthops,
    of_transports: Vec<Setting>,
    problems: &mut Problems,
) -> Option<Config> {
    let mut reader = Reader::new(String::new(), given, problems);
    let nexthops = ports.clone();
    let config = Config::read(&mut reader, &nexthops, Some(transports), Some(ports), Some(Vec::new()));
    let mut settings = std::mem::take(&mut reader.settings);
    for (key, given) in std::mem::take(&mut reader.given) {
        let hint = match given.shape {
            Shape::Table(_) => "the sections are [routes], [aliases] and [transport.NAME]".to_owned(),
            _ => hint_for_top_key(&key),
        };
        reader.problems.push(Problem::unknown(&key, &given, &hint));
    }
    let is_default = |key: &str| settings.iter().any(|set| set.key == key && set.source == DEFAULT);
    for (key, what) in config.iter().flat_map(|config| contradictions(config, is_default)) {
        problems.push(contradiction(&settings, key, &what));
    }
    settings.extend(of_transports);
    config.map(|config| Config { settings, ..config })
}

/// A problem of a value that is in order by itself.
fn contradiction(settings: &[Setting], key: &str, what: &str) -> Problem {
    match settings.iter().find(|setting| setting.key == key) {
        Some(setting) => Problem::of_setting(setting, what),
        // An entry of a table that was given in one piece.
        None => match settings.iter().find(|setting| key.starts_with(&format!("{}.", setting.key))) {
            Some(table) => Problem::general(format!("{key} ({}): {what}", table.source)),
            None => Problem::general(format!("{key}: {what}")),
        },
    }
}

/// Combinations at the top that cannot work: the key to name, and why. Defaults are not to blame.
fn contradictions(config: &Config, is_default: impl Fn(&str) -> bool) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    // A default that does not fit a small pool is no fault: no more than an eighth of it is ever reserved.
    if config.workers_reserved >= config.workers && !is_default("workers_reserved") {
        found
            .push(("workers_reserved", format!("it must be less than workers, which is {}", config.workers)));
    }
    let (least, most) = (config.minimal_backoff_time.as_secs(), config.maximal_backoff_time.as_secs());
    if least > most {
        found.push(if is_default("minimal_backoff_time") {
            (
                "maximal_backoff_time",
                format!("it must not be less than minimal_backoff_time, which is {least}s"),
            )
        } else {
            (
                "minimal_backoff_time",
                format!("it must not be more than maximal_backoff_time, which is {most}s"),
            )
        });
    }
    found
}
