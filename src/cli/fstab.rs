//! The program under the name `mount.bedplate`, by which mount(8) calls it for a line of /etc/fstab: its arguments become those
//! of `bedplate mount`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The name by which mount(8) calls.
const NAME: &str = "mount.bedplate";
/// Options that carry a value, as flags of `bedplate mount`.
const VALUES: [(&str, &str); 9] = [
    ("url", "--url"),
    ("s3_url", "--s3-url"),
    ("pin", "--pin"),
    ("credentials", "--credentials"),
    ("cache", "--cache"),
    ("cache_size", "--cache-size"),
    ("uid", "--uid"),
    ("gid", "--gid"),
    ("mode", "--mode"),
];

/// The arguments of this process, the program's name first, as `bedplate` understands them.
#[must_use]
pub fn arguments() -> Vec<OsString> {
    translate(std::env::args_os().collect())
}

fn translate(args: Vec<OsString>) -> Vec<OsString> {
    let is_helper = args.first().is_some_and(|name| Path::new(name).file_name() == Some(OsStr::new(NAME)));
    if !is_helper {
        return args;
    }
    let mut out: Vec<OsString> = vec!["bedplate".into(), "mount".into(), "--background".into()];
    let mut rest = args.into_iter().skip(1);
    while let Some(arg) = rest.next() {
        match arg.to_str() {
            Some("-o") => {
                let options = rest.next().unwrap_or_default();
                out.extend(options.to_string_lossy().split(',').flat_map(flags_of).map(OsString::from));
            }
            // What mount(8) says of itself: sloppy, fake, no mtab, verbose.
            Some(flag) if flag.starts_with('-') && !flag.starts_with("--") => {}
            _ => out.push(arg),
        }
    }
    out
}

/// An option as flags; none for what is mount(8)'s own.
fn flags_of(option: &str) -> Vec<String> {
    match option.split_once('=') {
        None => match option {
            "rw" => vec!["--read-write".to_owned()],
            "allow_other" => vec!["--allow-other".to_owned()],
            _ => Vec::new(),
        },
        Some(("patience", value)) => vec!["--patience".to_owned(), value.to_owned()],
        Some((name, value)) => {
            let flag = VALUES.iter().find(|(option, _)| *option == name);
            flag.map_or_else(Vec::new, |(_, flag)| vec![(*flag).to_owned(), value.to_owned()])
        }
    }
}

#[cfg(test)]
mod tests {
    //! A line of /etc/fstab says what the flags say.
    use super::*;

    #[test]
    fn translates() {
        let of = |args: &[&str]| translate(args.iter().map(OsString::from).collect());
        let asked =
            ["/sbin/mount.bedplate", "data@v1", "/mnt", "-n", "-o", "ro,_netdev,url=http://a:1,uid=5,allow_other"];
        let want = [
            "bedplate",
            "mount",
            "--background",
            "data@v1",
            "/mnt",
            "--url",
            "http://a:1",
            "--uid",
            "5",
            "--allow-other",
        ];
        assert_eq!(of(&asked), want);
        assert_eq!(of(&["bedplate", "ls", "-o"]), ["bedplate", "ls", "-o"]);
    }
}
