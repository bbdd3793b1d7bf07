//! The program under the name `mount.bedplate`, by which mount(8) calls it for a line of /etc/fstab: its arguments become those
//! of `bedplate mount`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The name by which mount(8) calls.
const NAME: &str = "mount.bedplate";
/// Options that carry a value, and options that carry none, as flags of `bedplate mount`.
const FLAGS: [(&str, &str); 14] = [
    ("url", "--url"),
    ("s3_url", "--s3-url"),
    ("pin", "--pin"),
    ("credentials", "--credentials"),
    ("cache", "--cache"),
    ("cache_size", "--cache-size"),
    ("uid", "--uid"),
    ("gid", "--gid"),
    ("mode", "--mode"),
    ("patience", "--patience"),
    ("allow_other", "--allow-other"),
    ("noexec", "--no-exec"),
    ("rw", "--read-write"),
    ("ro", "--read-only"),
];
/// How many of [`FLAGS`] carry a value.
const WITH_VALUE: usize = 10;
/// What is mount(8)'s own, or is so in any case, or means nothing here.
const MEANINGLESS: &str = "defaults auto noauto user nouser users owner group _netdev nofail nodev dev nosuid suid exec async \
    atime noatime diratime nodiratime relatime norelatime strictatime nostrictatime lazytime nolazytime silent loud";
/// What an option of other programs begins with: systemd's, udisks', a comment.
const OTHERS: [&str; 4] = ["x-", "X-", "comment=", "helper="];

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
    let (mut words, mut options) = (Vec::new(), Vec::new());
    let mut is_sloppy = false;
    let mut rest = args.into_iter().skip(1);
    while let Some(arg) = rest.next() {
        match arg.to_str() {
            Some("-o") => {
                let given = rest.next().unwrap_or_default();
                let given = given.to_string_lossy();
                options.extend(given.split(',').filter(|option| !option.is_empty()).map(str::to_owned));
            }
            // What mount(8) says of itself: sloppy, fake, no mtab, verbose.
            Some(flag) if flag.starts_with('-') && !flag.starts_with("--") => is_sloppy |= flag.contains('s'),
            _ => words.push(arg),
        }
    }
    // mount(8) says "rw" where a line of fstab says nothing, and a snapshot is never written.
    let place = words.first().map(|place| place.to_string_lossy()).unwrap_or_default();
    let is_snapshot = place.split('/').next().is_some_and(|bucket| bucket.contains('@'));
    options.retain(|option| !(is_snapshot && option == "rw"));
    let mut out: Vec<OsString> = vec!["bedplate".into(), "mount".into(), "--background".into()];
    out.extend(words);
    out.extend(options.iter().flat_map(|option| flags_of(option, is_sloppy)).map(OsString::from));
    out
}

/// An option as flags; none for what means nothing here.
fn flags_of(option: &str, is_sloppy: bool) -> Vec<String> {
    let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
    if let Some(place) = FLAGS.iter().position(|(known, _)| *known == name)
        && (place < WITH_VALUE) == value.is_some()
    {
        return [Some(FLAGS[place].1), value].into_iter().flatten().map(str::to_owned).collect();
    }
    let is_meaningless = MEANINGLESS.split_whitespace().any(|known| known == option)
        || OTHERS.iter().any(|beginning| option.starts_with(beginning));
    if is_meaningless || is_sloppy {
        return Vec::new();
    }
    // `bedplate mount` refuses it, in its own words.
    vec![format!("--unknown-option={option}")]
}

#[cfg(test)]
mod tests {
    //! A line of /etc/fstab says what the flags say; what means nothing is left out, and what is not known is not.
    use super::*;

    fn of(args: &[&str]) -> Vec<OsString> {
        translate(args.iter().map(OsString::from).collect())
    }

    #[test]
    fn translates() {
        let asked =
            ["/sbin/mount.bedplate", "data@v1", "/mnt", "-n", "-o", "rw,_netdev,url=http://a:1,uid=5,allow_other"];
        let want = "bedplate mount --background data@v1 /mnt --url http://a:1 --uid 5 --allow-other";
        assert_eq!(of(&asked), want.split(' ').collect::<Vec<_>>());
        assert_eq!(of(&["bedplate", "ls", "-o"]), ["bedplate", "ls", "-o"]);
    }

    #[test]
    fn options() {
        let flags = |options: &str| {
            let all = of(&["mount.bedplate", "data", "/mnt", "-o", options]);
            all[5..].iter().map(|flag| flag.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        let nothing = "_netdev,nofail,x-systemd.automount,x-systemd.idle-timeout=60,defaults,noauto,user,nodev,nosuid,noatime,relatime";
        assert_eq!(flags(nothing), "");
        assert_eq!(flags("rw,noexec,patience=5s"), "--read-write --no-exec --patience 5s");
        assert_eq!(flags("ro"), "--read-only");
        // A misspelled option must not be taken for none, nor one whose value is missing.
        assert_eq!(flags("cache_sice=1GiB"), "--unknown-option=cache_sice=1GiB");
        assert_eq!(flags("cache,rw=yes"), "--unknown-option=cache --unknown-option=rw=yes");
        let sloppy = of(&["mount.bedplate", "data", "/mnt", "-s", "-o", "intr"]);
        assert_eq!(sloppy.len(), 5);
    }
}
