//! The layers of what was given, put one over the other: file < environment < command line.
//!
//! - Owns: where values come from and which one wins; figment keeps the source of each.
//! - Leaves to others: what a value means (`keys`, `parse`), defaults and which combinations work (`load`).
//! - Always true: a value is text, a list of texts or a table, whatever its type was, with the name of its source.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::{Problem, Problems};
use super::keys::{Given, Shape};
use super::known::{may_be_secret, shown, spelled};
use super::parse::is_bare_secret_path;

/// The file that is read where no other is named. It may be missing.
pub const DEFAULT_FILE: &str = "/etc/lastmile/lastmile.toml";
/// In front of every variable that is ours.
const PREFIX: &str = "LASTMILE_";
/// The variable that names the file.
const FILE_VARIABLE: &str = "LASTMILE_CONFIG";
/// Variables that are not keys.
const NO_KEYS: [&str; 3] = [FILE_VARIABLE, "LASTMILE_LOG", "LASTMILE_SENDMAIL_STRICT"];
/// Between a file and the variable that names it, in the source of a value.
pub(super) const NAMED_BY: &str = ", named by ";
/// Octets of a configuration file.
const FILE_SIZE_MAX: u64 = 4 << 20;
/// Octets of a value that a `_FILE` variable points to.
const VALUE_SIZE_MAX: u64 = 64 << 10;

/// Where the configuration is read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The file that `-c` names. `None`: the one that `LASTMILE_CONFIG` in `environment` names, or
    /// [`DEFAULT_FILE`]. With `/dev/null` no file has a say.
    pub file: Option<PathBuf>,
    /// The environment. Only variables that begin with `LASTMILE_` are looked at.
    pub environment: Vec<(OsString, OsString)>,
    /// The arguments of `-o`: `key=value`, or `transport.NAME.key=value`. The last one of a key wins.
    pub overrides: Vec<String>,
}

impl Sources {
    /// The environment of this process, with the `-c` and `-o` of its command line.
    pub fn from_process(file: Option<PathBuf>, overrides: Vec<String>) -> Self {
        Self { file, environment: std::env::vars_os().collect(), overrides }
    }

    /// The same sources, for reading them again later: a file that is there now must be there then, too. Without that
    /// a file that is gone, or hidden by chroot, would silently mean the defaults, and send mail elsewhere.
    #[must_use]
    pub fn pinned(self) -> Self {
        let (path, _) = self.file();
        let file = if path.exists() { std::path::absolute(&path).ok().or(Some(path)) } else { self.file };
        Self { file, ..self }
    }

    /// The file to read, and whether it must be there. An empty `LASTMILE_CONFIG` names none.
    pub fn file(&self) -> (PathBuf, bool) {
        let is_it = |name: &OsString| name.eq_ignore_ascii_case(FILE_VARIABLE);
        let variable = self.environment.iter().find(|(name, value)| is_it(name) && !value.is_empty());
        let named = self.file.clone().or_else(|| variable.map(|(_, path)| path.into()));
        let must_exist = named.is_some();
        (named.unwrap_or_else(|| DEFAULT_FILE.into()), must_exist)
    }
}

/// Values with one source, as figment takes them.
struct Layer {
    /// What the source is called.
    source: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

impl Layer {
    /// One value at a path of keys.
    fn of_one(source: String, path: &[String], value: &str) -> Self {
        let value = path
            .iter()
            .skip(1)
            .rev()
            .fold(Value::from(value), |value, key| Value::from(Dict::from([(key.clone(), value)])));
        Self { source, values: path.first().map(|key| (key.clone(), value)).into_iter().collect() }
    }
}

/// What was given, layer over layer, before defaults.
pub(super) struct Layered {
    figment: Figment,
    /// Transports that the file names.
    pub(super) transports_of_file: BTreeSet<String>,
}

impl Layered {
    pub(super) fn new() -> Self {
        Self { figment: Figment::new(), transports_of_file: BTreeSet::new() }
    }

    /// Reads all sources, each value over those of the sources before.
    /// `None` if the file cannot be read: what else is wrong may be only for want of it.
    pub(super) fn read(sources: &Sources, problems: &mut Problems) -> Option<Self> {
        let mut layered = Self::new();
        let (path, must_exist) = sources.file();
        match file_layer(&path) {
            Ok(layer) => layered.add_file(layer),
            Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound && !must_exist => {}
            Err(error) => {
                problems.push(Problem::general(format!("{}: {error}", path.display())));
                return None;
            }
        }
        layered.add_all(environment_layers(sources, problems));
        layered.add_all(override_layers(sources, problems));
        Some(layered)
    }

    fn add_file(&mut self, layer: Layer) {
        if let Some(Value::Dict(_, transports)) = layer.values.get("transport") {
            self.transports_of_file = transports.keys().cloned().collect();
        }
        self.add_all(vec![layer]);
    }

    fn add_all(&mut self, layers: Vec<Layer>) {
        let figment = std::mem::take(&mut self.figment);
        self.figment = layers.into_iter().fold(figment, Figment::merge);
    }

    /// The values that were given, each with its source.
    pub(super) fn given(&self) -> BTreeMap<String, Given> {
        // Our layers cannot fail: what could was read before it became one.
        let data = self.figment.data().unwrap_or_default();
        let values = data.into_iter().find(|(profile, _)| *profile == Profile::Default);
        values.map(|(_, dict)| self.table(&dict)).unwrap_or_default()
    }

    fn table(&self, dict: &Dict) -> BTreeMap<String, Given> {
        dict.iter().map(|(key, value)| (key.clone(), self.given_value(value))).collect()
    }

    fn given_value(&self, value: &Value) -> Given {
        let source = self.figment.get_metadata(value.tag()).map(|metadata| metadata.name.to_string());
        let shape = match value {
            Value::Dict(_, dict) => Shape::Table(self.table(dict)),
            other => Shape::of(other),
        };
        Given { shape, source: source.unwrap_or_default() }
    }
}

impl Shape {
    /// The shape of a value whose entries all come from where it comes from.
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Dict(..) => Self::Other,
            Value::Array(_, values) => {
                values.iter().map(scalar).collect::<Option<_>>().map_or(Self::Other, Self::List)
            }
            other => scalar(other).map_or(Self::Other, Self::Text),
        }
    }
}

/// A single value as text.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Char(_, c) => Some(c.to_string()),
        Value::Bool(_, yes) => Some(yes.to_string()),
        Value::Num(_, number) => number
            .to_i128()
            .map(|number| number.to_string())
            .or_else(|| number.to_u128().map(|number| number.to_string()))
            .or_else(|| number.to_f64().map(|number| number.to_string())),
        Value::Empty(..) | Value::Dict(..) | Value::Array(..) => None,
    }
}

/// Why a file gives no values.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    #[error("it is not TOML: {0}")]
    Syntax(String),
}

fn file_layer(path: &Path) -> Result<Layer, FileError> {
    let text = read_bounded(path, FILE_SIZE_MAX)?;
    let values = Toml::from_str(&text).map_err(|error| FileError::Syntax(on_one_line(&error.to_string())))?;
    Ok(Layer { source: path.display().to_string(), values })
}

/// What a TOML error says: where, and what was expected. It comes as a picture of the line with a caret below.
fn on_one_line(error: &str) -> String {
    let is_picture =
        |line: &&str| line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit()).starts_with('|');
    let said = error.lines().filter(|line| !is_picture(line)).map(str::trim).collect::<Vec<_>>().join(": ");
    // What a bare word or a bare time looks like to TOML; no mistake is more common.
    let is_bare = ["invalid string", "expected newline"].iter().any(|sign| said.contains(sign));
    let hint = if is_bare { "; texts need quotes, as in \"5s\" or \"yes\"" } else { "" };
    format!("{}{hint}", said.strip_prefix("TOML parse error at ").unwrap_or(&said))
}

fn read_bounded(path: &Path, limit: u64) -> Result<String, FileError> {
    let file = File::open(path)?;
    // Only a hint: without it the file is read in pieces that begin with 32 octets.
    let length = file.metadata().map_or(0, |metadata| metadata.len().min(limit));
    let mut text = String::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    file.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit { Err(FileError::TooLarge(limit)) } else { Ok(text) }
}

/// One layer for each variable that is ours.
fn environment_layers(sources: &Sources, problems: &mut Problems) -> Vec<Layer> {
    let mut layers: BTreeMap<Vec<String>, Layer> = BTreeMap::new();
    for (name, value) in &sources.environment {
        let name = &*name.to_string_lossy();
        if !is_ours(name) {
            continue;
        }
        let layer = value
            .to_str()
            .ok_or_else(|| "its value is not UTF-8".to_owned())
            .and_then(|value| variable_layer(name, value))
            .and_then(|(path, layer)| match layers.get(&path) {
                Some(other) => Err(format!("its key is set already, by {}", other.source)),
                None => Ok((path, layer)),
            });
        match layer {
            Ok((path, layer)) => {
                layers.insert(path, layer);
            }
            Err(what) => problems.push(Problem::general(format!("environment {name}: {what}"))),
        }
    }
    layers.into_values().collect()
}

fn is_ours(name: &str) -> bool {
    let has_prefix = name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    has_prefix && !NO_KEYS.iter().any(|no_key| name.eq_ignore_ascii_case(no_key))
}

/// The key that a variable is for, and its value, which `NAME_FILE` has in a file.
fn variable_layer(name: &str, value: &str) -> Result<(Vec<String>, Layer), String> {
    let name_of_key = name.get(PREFIX.len()..).unwrap_or_default().to_ascii_lowercase();
    let path_of = |name: &str| name.split("__").map(str::to_owned).collect::<Vec<_>>();
    let path = path_of(&name_of_key);
    if let Some(path) = spelled(&path) {
        // Among them are keys that end so themselves, such as tls_cert_file.
        return Ok((path.clone(), Layer::of_one(format!("environment {name}"), &path, value)));
    }
    if let Some(path) = name_of_key.strip_suffix("_file").and_then(|name| spelled(&path_of(name))) {
        let text = value_in_file(&path, value)?;
        let layer = Layer::of_one(format!("{value}{NAMED_BY}{name}"), &path, &text);
        return Ok((path, layer));
    }
    check_path(&path)?;
    let layer = Layer::of_one(format!("environment {name}"), &path, value);
    Ok((path, layer))
}

/// The value of a key, from the file that a variable names. A table of passwords stays there until who delivers opens it.
fn value_in_file(key: &[String], file: &str) -> Result<String, String> {
    if key.last().is_some_and(|key| key == "sasl_password_maps") {
        return match is_bare_secret_path(file) {
            true => Ok(format!("file:{file}")),
            // Somebody may have taken it for the variable of the value itself.
            false => {
                Err("the path of a file is needed, one that begins with /; its value is not shown".to_owned())
            }
        };
    }
    let text = read_bounded(Path::new(file), VALUE_SIZE_MAX).map_err(|error| format!("{file}: {error}"))?;
    Ok(text.trim_end().to_owned())
}

/// One layer for each `-o`.
fn override_layers(sources: &Sources, problems: &mut Problems) -> Vec<Layer> {
    let mut layers = Vec::new();
    for option in &sources.overrides {
        let parts = option.split_once('=').ok_or_else(|| "key=value is needed".to_owned());
        let layer = parts.and_then(|(key, value)| {
            let path: Vec<_> = key.trim().split('.').map(str::to_owned).collect();
            check_path(&path)?;
            Ok(Layer::of_one("option -o".to_owned(), &path, value.trim()))
        });
        match layer {
            Ok(layer) => layers.push(layer),
            Err(what) => {
                let option = without_secret(option);
                problems.push(Problem::general(format!("option -o {option:?}: {what}")));
            }
        }
    }
    layers
}

/// An option as it may be shown.
fn without_secret(option: &str) -> Cow<'_, str> {
    match option.split_once('=') {
        Some((key, value)) => format!("{key}={}", shown(key, value.trim())).into(),
        None if may_be_secret(option, option) => "(not shown)".into(),
        None => option.into(),
    }
}

/// A path is a key, or `transport`, a name and a key. Tables are given as a whole: their names have dots.
fn check_path(path: &[String]) -> Result<(), String> {
    match path {
        [_] => Ok(()),
        [section, _, _] if section == "transport" => Ok(()),
        [section, ..] if matches!(section.as_str(), "routes" | "aliases") => {
            Err(format!("give {section} as a whole here, as in {section}={{ \"a\" = \"b\", \"c\" = \"d\" }}"))
        }
        [section, name, key, ..] if section == "transport" && key == "tls_policy" => Err(format!(
            "give tls_policy as a whole here, as in transport.{name}.tls_policy={{ \"mx.example.org\" = \"secure\" }}"
        )),
        [section, ..] if section == "transport" => {
            Err("a transport's key is transport.NAME.key (LASTMILE_TRANSPORT__NAME__KEY)".to_owned())
        }
        _ => Err("there is no such section; the sections are routes, aliases and transport.NAME".to_owned()),
    }
}
