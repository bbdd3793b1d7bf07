//! From the list that a rack integrator delivers (CSV: serial number, MAC, BMC address, the password on the label) to a spec. Pure:
//! passwords are handed out apart, because none may stand in a spec.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::model::{ImageRef, NodeName, Secret};

/// The folder of passwords, beside the spec.
pub const PASSWORDS: &str = "bmc-passwords";

/// What the list does not say.
#[derive(Clone, Debug)]
pub struct Import<'a> {
    /// What messages and the spec call the list.
    pub origin: &'a str,
    /// The rack's name.
    pub name: &'a str,
    /// The image of its nodes.
    pub image: &'a ImageRef,
    /// Who logs in where a row does not say.
    pub username: &'a str,
}

/// A list as a spec.
#[derive(Debug)]
pub struct Imported {
    /// The spec.
    pub spec: String,
    /// The password of each node that has one; it belongs into the file of the node's name in [`PASSWORDS`].
    pub passwords: Vec<(NodeName, Secret)>,
    /// Nodes.
    pub nodes: usize,
    /// Columns that were of no use.
    pub ignored: Vec<String>,
}

/// Why a list was refused.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ImportError {
    /// List and line.
    pub place: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// What a column may hold, and the names that integrators give it, in small letters and without what is neither letter nor digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Column {
    Name,
    Serial,
    Mac,
    Bmc,
    Username,
    Password,
    Slot,
    Feed,
    Model,
}

const COLUMNS: [(Column, &[&str]); 9] = [
    (Column::Name, &["name", "hostname", "host", "node", "nodename", "servername"]),
    (Column::Serial, &["serial", "serialnumber", "serialno", "sn", "servicetag", "systemserial", "systemserialnumber"]),
    (Column::Mac, &["mac"]),
    (Column::Bmc, &["bmc", "bmcaddress", "bmchost", "bmchostname", "bmcurl", "ip", "ipaddress", "ipmi", "ipmiaddress"]),
    (Column::Username, &["username", "user", "bmcuser", "bmcusername", "login", "ipmiuser"]),
    (
        Column::Password,
        &[
            "password",
            "pass",
            "bmcpassword",
            "ipmipassword",
            "labelpassword",
            "defaultpassword",
            "uniquepassword",
            "pwd",
        ],
    ),
    (Column::Slot, &["slot", "u", "ru", "rackunit", "unit", "position", "rackposition"]),
    (Column::Feed, &["feed", "powerfeed", "pdu"]),
    (Column::Model, &["model", "product", "productname", "partnumber", "sku"]),
];

impl Column {
    fn of(header: &str) -> Option<Self> {
        let plain: String = header.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        let known = COLUMNS.iter().find(|(_, names)| names.contains(&plain.as_str())).map(|(column, _)| *column);
        // Every maker has a name of its own for its BMC, and writes "IP" or "MAC" behind it.
        let by_end = |(end, column)| plain.ends_with(end).then_some(column);
        let ends = [("ip", Self::Bmc), ("ipaddress", Self::Bmc), ("mac", Self::Mac), ("macaddress", Self::Mac)];
        known.or_else(|| ends.into_iter().find_map(by_end))
    }
}

/// One row.
struct Row<'a> {
    place: String,
    cells: Vec<(Column, &'a str)>,
}

impl Row<'_> {
    fn cell(&self, column: Column) -> Option<&str> {
        self.cells.iter().find(|(of, _)| *of == column).map(|(_, text)| text.trim()).filter(|text| !text.is_empty())
    }

    fn wrong(&self, problem: impl Into<String>) -> ImportError {
        ImportError { place: self.place.clone(), problem: problem.into() }
    }
}

/// Reads a list: comma, semicolon or tab between its columns, which its first line names.
///
/// # Errors
/// [`ImportError`], by line, for what cannot become a node.
pub fn import(list: &str, what: &Import<'_>) -> Result<Imported, ImportError> {
    let list = list.trim_start_matches('\u{feff}');
    let first = list.lines().next().unwrap_or_default();
    let between = [b',', b';', b'\t'].into_iter().max_by_key(|mark| first.bytes().filter(|byte| byte == mark).count());
    let mut reader =
        csv::ReaderBuilder::new().delimiter(between.unwrap_or(b',')).flexible(true).from_reader(list.as_bytes());
    let whole = |problem: String| ImportError { place: what.origin.to_owned(), problem };
    let headers = reader.headers().map_err(|error| whole(error.to_string()))?.clone();
    let columns: Vec<Option<Column>> = headers.iter().map(Column::of).collect();
    if !columns.contains(&Some(Column::Bmc)) {
        let seen: Vec<&str> = headers.iter().collect();
        return Err(whole(format!(
            "no column holds the BMCs' addresses: name one of them BMC, BMC IP or IP in the first line, which has {:?}",
            seen.join(", ")
        )));
    }
    let mut twice = BTreeSet::new();
    if let Some(column) = columns.iter().flatten().find(|column| !twice.insert(**column)) {
        return Err(whole(format!("two columns both hold the {column:?}; remove one, or rename it")));
    }
    let (mut nodes, mut passwords, mut names) = (String::new(), vec![], BTreeSet::new());
    for record in reader.records() {
        let record = record.map_err(|error| whole(error.to_string()))?;
        if record.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        let line = record.position().map_or(0, csv::Position::line);
        let cells = columns.iter().zip(record.iter()).filter_map(|(column, text)| Some(((*column)?, text)));
        let row = Row { place: format!("{}, line {line}", what.origin), cells: cells.collect() };
        let name = name_of(&row, what)?;
        if !names.insert(name.clone()) {
            return Err(row.wrong(format!("there is a node {name} already; give each its own name")));
        }
        if let Some(password) = row.cell(Column::Password) {
            passwords.push((name.clone(), Secret::new(password)));
        }
        node(&mut nodes, &name, &row, what)?;
    }
    if names.is_empty() {
        return Err(whole("it has no row besides its first line".to_owned()));
    }
    let ignored = headers.iter().filter(|header| Column::of(header).is_none()).map(str::to_owned).collect();
    Ok(Imported { spec: head(what, names.len()) + &nodes, passwords, nodes: names.len(), ignored })
}

/// The node's name: as the list has it, else by its place in the rack, else by its serial number.
fn name_of(row: &Row<'_>, what: &Import<'_>) -> Result<NodeName, ImportError> {
    let text = match (row.cell(Column::Name), row.cell(Column::Slot), row.cell(Column::Serial)) {
        // A host name's domain is not the node's.
        (Some(name), ..) => name.split('.').next().unwrap_or(name).to_lowercase(),
        (None, Some(slot), _) => {
            let number = slot.trim_start_matches(['u', 'U']);
            format!("{}-{number:0>2}", what.name.to_lowercase())
        }
        (None, None, Some(serial)) => serial.to_lowercase(),
        (None, None, None) => {
            return Err(row.wrong("it has neither a name nor a slot nor a serial number: give it one of them"));
        }
    };
    text.parse().map_err(|error| row.wrong(format!("{error}")))
}

fn node(text: &mut String, name: &NodeName, row: &Row<'_>, what: &Import<'_>) -> Result<(), ImportError> {
    let bmc = row.cell(Column::Bmc).ok_or_else(|| {
        row.wrong("it has no BMC address: look its MAC up in the leases of your DHCP server, and write the address into the list")
    })?;
    let bmc = match (bmc.contains("://"), bmc.parse::<std::net::Ipv6Addr>()) {
        (true, _) => bmc.to_owned(),
        (false, Ok(address)) => format!("https://[{address}]"),
        (false, Err(_)) => format!("https://{bmc}"),
    };
    let slot = row.cell(Column::Slot).map(|slot| {
        let number = slot.trim_start_matches(['u', 'U']);
        number.parse::<u16>().map_err(|_| row.wrong(format!("{slot:?} is no rack unit: write a whole number")))
    });
    // Writing to a string cannot fail.
    let about = [Column::Model, Column::Mac].into_iter().filter_map(|column| row.cell(column));
    let about = about.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ");
    let _ = writeln!(text, "\n[[node]]{}{about}", if about.is_empty() { "" } else { "  # " });
    let _ = writeln!(text, "name = {}\nbmc = {}", quoted(name.as_str()), quoted(&bmc));
    if let Some(serial) = row.cell(Column::Serial) {
        let _ = writeln!(text, "serial = {}", quoted(serial));
    }
    if let Some(slot) = slot.transpose()? {
        let _ = writeln!(text, "slot = {slot}");
    }
    if let Some(feed) = row.cell(Column::Feed) {
        let _ = writeln!(text, "feed = {}", quoted(feed));
    }
    if let Some(user) = row.cell(Column::Username).filter(|user| *user != what.username) {
        let _ = writeln!(text, "username = {}", quoted(user));
    }
    if row.cell(Column::Password).is_some() {
        let _ = writeln!(text, "password-file = {}", quoted(&format!("{PASSWORDS}/{name}")));
    }
    Ok(())
}

fn head(what: &Import<'_>, nodes: usize) -> String {
    let (name, image, username) = (quoted(what.name), quoted(&what.image.to_string()), quoted(what.username));
    let origin = what.origin.split_whitespace().collect::<Vec<_>>().join(" ");
    format!(
        "# From {origin}: {nodes} nodes. config/racks/example.toml shows every key.\n\n\
         name = {name}\nimage = {image}\n\n[bmc]\nusername = {username}\n\
         # For nodes without a password of their own:\npassword-env = \"BEDPLATE_BMC_PASSWORD\"\n\n\
         # Which disk the image goes to. Narrow this until exactly one drive fits: `bedplate rack survey` lists the drives, and\n\
         # nothing is written while several fit.\n[disk]\nsize-min = \"100GB\"\n"
    )
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    //! Lists as integrators write them become specs that are taken; what cannot is told by its line; no password stands in a spec.
    use super::*;
    use crate::rack::Spec;

    fn of(list: &str) -> Result<Imported, ImportError> {
        let image: ImageRef = "os@1".parse().unwrap();
        import(list, &Import { origin: "delivery.csv", name: "r1", image: &image, username: "admin" })
    }

    #[test]
    fn lists_become_specs() {
        let imported = of("\u{feff}Service Tag;BMC MAC;BMC IP Address;U;BMC Password;Weight\r\n\
             5ABCD01;aa:bb:cc:dd:ee:01;10.0.8.11;U12;c\"al;vin;40 kg\r\n\r\n5ABCD02;aa:bb:cc:dd:ee:02;10.0.8.12;7;hob\\bes;\r\n")
        .unwrap();
        insta::assert_snapshot!(imported.spec, @r#"
        # From delivery.csv: 2 nodes. config/racks/example.toml shows every key.

        name = "r1"
        image = "os@1"

        [bmc]
        username = "admin"
        # For nodes without a password of their own:
        password-env = "BEDPLATE_BMC_PASSWORD"

        # Which disk the image goes to. Narrow this until exactly one drive fits: `bedplate rack survey` lists the drives, and
        # nothing is written while several fit.
        [disk]
        size-min = "100GB"

        [[node]]  # aa:bb:cc:dd:ee:01
        name = "r1-12"
        bmc = "https://10.0.8.11"
        serial = "5ABCD01"
        slot = 12
        password-file = "bmc-passwords/r1-12"

        [[node]]  # aa:bb:cc:dd:ee:02
        name = "r1-07"
        bmc = "https://10.0.8.12"
        serial = "5ABCD02"
        slot = 7
        password-file = "bmc-passwords/r1-07"
        "#);
        assert_eq!(imported.ignored, ["Weight"]);
    }

    #[test]
    fn what_cannot_be_a_node_is_told_by_its_line() {
        for (list, told) in [
            ("", "no column holds the BMCs' addresses"),
            ("serial,mac\nA,B\n", "no column holds the BMCs' addresses"),
            ("name,bmc\n", "no row besides"),
            ("name,bmc\nn1,\n", "line 2: it has no BMC address"),
            ("name,bmc\nn1,10.0.0.1\nN1,10.0.0.2\n", "line 3: there is a node n1 already"),
            ("bmc\n10.0.0.1\n", "line 2: it has neither a name nor"),
            ("slot,bmc\nfront,10.0.0.1\n", "is no rack unit"),
            ("bmc,ip,name\n1,2,n1\n", "two columns both hold"),
            ("name,bmc\n\"a b\",10.0.0.1\n", "line 2: "),
        ] {
            let error = of(list).unwrap_err().to_string();
            assert!(error.starts_with("delivery.csv") && error.contains(told), "{list:?}: {error}");
        }
    }

    #[test]
    fn specs_are_taken_and_hold_no_password() {
        let imported = of("name,serial,bmc,user,password,feed\nGPU-01.rack.example,S1,fd00::5,root,hunter2,A\ngpu-02,S2,https://b2,,,\n").unwrap();
        assert!(!imported.spec.contains("hunter2"));
        assert_eq!(imported.passwords.len(), 1);
        let spec = Spec::parse(&imported.spec, "rack.toml", std::path::Path::new("/racks")).unwrap();
        let first = &spec.nodes[0];
        assert_eq!((first.name.as_str(), first.bmc.to_string()), ("gpu-01", "https://[fd00::5]".to_owned()));
        assert_eq!((first.serial.as_deref(), first.feed.as_deref()), (Some("S1"), Some("A")));
        assert_eq!(first.login.as_ref().unwrap().username, "root");
        assert_eq!(spec.nodes[1].login.as_ref().unwrap().username, "admin");
    }
}
