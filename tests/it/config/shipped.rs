//! The shipped file and the manual page, against the keys that there are.

use std::process::Command;

use super::*;

#[test]
fn keys_with_an_asterisk_in_the_manual_are_those_that_need_a_restart() {
    let old = Config::default();
    assert_eq!(old.restart_needed(&old), [""; 0]);
    let mut needing = BTreeSet::new();
    let options: Vec<_> = OTHER_VALUES.split_ascii_whitespace().collect();
    for option in &options {
        let new = from_options(&[option]).unwrap();
        assert!(new != old, "{option}");
        needing.extend(old.restart_needed(&new));
    }
    let given: BTreeSet<_> = options.iter().map(|option| option.split_once('=').unwrap().0).collect();
    assert_eq!(given, top_keys(&old));
    let starred = MANUAL_PAGE.split(".It Ic ").filter(|item| item.contains("\n* "));
    assert_eq!(needing, starred.filter_map(|item| item.split_ascii_whitespace().next()).collect());
}

fn top_keys(config: &Config) -> BTreeSet<&str> {
    config.settings().iter().map(|setting| setting.key.as_str()).filter(|key| !key.contains('.')).collect()
}

fn transport_keys(config: &Config) -> BTreeSet<&str> {
    config.settings().iter().filter_map(|setting| setting.key.strip_prefix("transport.lmtp.")).collect()
}

/// The shipped file with every value taken out of its comment.
fn uncommented() -> String {
    let lines = SHIPPED_FILE.lines().map(|line| match line.strip_prefix('#') {
        Some(value) if !value.is_empty() && !value.starts_with([' ', '#']) => value,
        _ => line,
    });
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_shipped_file_changes_nothing_as_it_is_nor_uncommented() {
    let values = |config: &Config| -> BTreeMap<String, String> {
        config.settings().iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect()
    };
    let default = Config::default();
    assert_eq!(from_file(SHIPPED_FILE).unwrap(), default);
    let uncommented = from_file(&uncommented()).unwrap();
    assert_eq!(values(&uncommented), values(&default));
}

#[test]
fn every_key_is_in_the_shipped_file() {
    let file = uncommented();
    let config = from_file(&file).unwrap();
    let is_given = |key: &&str| !matches!(source(&config, key), "default" | "host name" | "myhostname");
    let of_system = ["myhostname", "myorigin", "routes", "aliases"];
    let top: BTreeSet<_> = top_keys(&config).into_iter().filter(is_given).chain(of_system).collect();
    assert_eq!(top, top_keys(&config));
    for key in of_system {
        assert!(
            file.contains(&format!("\n{key} = \"\"\n")) || file.contains(&format!("\n[{key}]\n")),
            "{key}"
        );
    }
    let of_lmtp = transport_keys(&config);
    let given = of_lmtp.iter().filter(|key| is_given(&format!("transport.lmtp.{key}").as_str()));
    assert_eq!(given.copied().collect::<BTreeSet<_>>(), of_lmtp);
}

#[test]
fn the_manual_page_has_every_key_with_its_default_and_no_other() {
    let config = Config::default();
    let items = MANUAL_PAGE.lines().filter_map(|line| line.strip_prefix(".It Ic ")?.split_once(" Pq "));
    let manual: BTreeMap<_, _> = items.collect();
    let keys: BTreeSet<_> = top_keys(&config).union(&transport_keys(&config)).copied().collect();
    assert_eq!(manual.keys().copied().collect::<BTreeSet<_>>(), keys);
    for setting in config.settings() {
        let key = setting.key.strip_prefix("transport.lmtp.").unwrap_or(&setting.key);
        let Some(written) = manual.get(key).filter(|_| setting.source == "default") else { continue };
        let written = written.strip_prefix("Pa ").unwrap_or(written).split(';').next().unwrap();
        let default = if setting.value.is_empty() || setting.value == "{}" { "none" } else { &setting.value };
        assert_eq!(written, default, "{}", setting.key);
    }
}

/// The manual's examples, without what mdoc needs.
fn examples() -> Vec<String> {
    let blocks = MANUAL_PAGE.split("\n.Bd ").skip(1).filter_map(|block| block.split_once("\n.Ed"));
    blocks.filter_map(|(block, _)| Some(block.split_once('\n')?.1.replace("\\&", "") + "\n")).collect()
}

#[test]
fn the_examples_of_the_manual_can_be_used() {
    let (tables, configurations): (Vec<_>, Vec<_>) =
        examples().into_iter().partition(|example| example.starts_with("# server"));
    assert_eq!((tables.len(), configurations.len()), (1, 5));
    for example in configurations {
        from_file(&example).unwrap_or_else(|said| panic!("{example}\n{said:?}"));
    }
    let table = written(&tables[0]);
    let map = format!("transport.smtp.sasl_password_maps=texthash:{}", table.path().display());
    let config = from_options(&[&map, "transport.smtp.sasl_auth_enable=yes"]).unwrap();
    config.open_secrets().unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_shipped_file_shows_a_table_of_passwords_that_can_be_used() {
    let lines = SHIPPED_FILE.lines().filter_map(|line| line.strip_prefix("#     "));
    let table: String =
        lines.filter(|line| line.contains("username:")).map(|line| format!("{line}\n")).collect();
    assert_eq!(table.lines().count(), 3, "{table}");
    let table = written(&table);
    let map = format!("transport.smtp.sasl_password_maps=texthash:{}", table.path().display());
    let config = from_options(&[&map, "transport.smtp.sasl_auth_enable=yes"]).unwrap();
    config.open_secrets().unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_command_of_the_manual_prints_a_fingerprint_that_can_be_pasted() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("skipped: there is no openssl");
        return;
    }
    let shown = MANUAL_PAGE.lines().find_map(|line| line.strip_prefix(".Dl openssl x509")).unwrap();
    assert!(SHIPPED_FILE.contains(&format!("#     openssl x509{shown}\n")), "the file shows another one");
    let directory = tempfile::tempdir().unwrap();
    let certificate = rcgen::generate_simple_self_signed(["mx".to_owned()]).unwrap();
    fs::write(directory.path().join("cert.pem"), certificate.cert.pem()).unwrap();
    let mut command = Command::new("sh");
    let output = command.arg("-c").arg(format!("openssl x509{shown}")).current_dir(directory.path()).output();
    let printed = String::from_utf8(output.unwrap().stdout).unwrap();
    let options = [
        "transport.smtp.tls_security_level=fingerprint",
        &format!("transport.smtp.tls_fingerprints={printed}"),
    ];
    let config = from_options(&options).unwrap();
    let tls = &config.transport(&"smtp".parse().unwrap()).unwrap().tls;
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate.cert.der());
    assert_eq!(tls.fingerprints.iter().map(|one| &one.0[..]).collect::<Vec<_>>(), [digest.as_ref()]);
}
