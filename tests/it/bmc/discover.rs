//! A network is asked who in it is a BMC: who else answers is left out, nothing is kept, nobody is told a password.

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::double::{Double, PASSWORD};

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_asked() {
    let double = Double::start(|_, _| None).await;
    let port = double.authority().split_once(':').unwrap().1.to_owned();
    // A neighbour at the same port that is no BMC, where the port happens to be free there; the other addresses refuse.
    let neighbour = tokio::net::TcpListener::bind(format!("127.0.0.2:{port}")).await;
    let deaf = async {
        let Ok(neighbour) = neighbour else { return std::future::pending().await };
        loop {
            let (mut stream, _) = neighbour.accept().await.unwrap();
            drop(stream.write_all(b"220 welcome\r\n").await);
        }
    };
    let home = tempfile::tempdir().unwrap();
    let run = async |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bedplate"));
        command
            .args(["bmc"])
            .args(arguments)
            .env("BEDPLATE_BMC_PASSWORD", PASSWORD)
            .env("XDG_CONFIG_HOME", home.path());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let discover = ["discover", "127.0.0.0/29", "--port", &port, "--wait", "2"];
    let scenes = async {
        let found = async || {
            let (code, said, why) = run(&[&discover[..], &["--output", "json"]].concat()).await;
            assert_eq!(code, Some(0), "{said}{why}");
            serde_json::from_str::<Value>(&said).unwrap()
        };
        let first = found().await;
        assert_eq!(first.as_array().unwrap().len(), 1, "{first}");
        assert_eq!((&first[0]["url"], &first[0]["certificate"]), (&double.url.as_str().into(), &"new".into()));
        assert_eq!(first[0]["pin"], format!("sha256:{}", hex::encode(double.pin)));
        assert!(!home.path().join("bedplate/known-bmcs.toml").exists(), "a stranger's certificate was kept");
        {
            let world = double.world.lock().unwrap();
            assert!(world.seen.iter().all(|seen| seen.header("authorization").is_none() && seen.method == "GET"));
        }
        assert_eq!(run(&["inventory", &double.url, "--username", "admin"]).await.0, Some(0));
        assert_eq!(found().await[0]["certificate"], "known");
        let other = rcgen::generate_simple_self_signed(vec!["other".to_owned()]).unwrap();
        double.tls.exchange(vec![other.cert.der().clone()], other.signing_key.into()).unwrap();
        let (_, said, _) = run(&discover).await;
        assert!(said.contains(&double.url) && said.contains("CHANGED"), "{said}");
        let (code, _, why) = run(&["discover", "127.0.0.3", "--port", &port]).await;
        assert!(code == Some(1) && why.contains("none of 1 addresses"), "{why}");
        let (code, _, why) = run(&["discover", "10.0.0.0/8"]).await;
        assert!(code == Some(2) && why.contains("more than 65536"), "{why}");
    };
    tokio::select! {
        () = scenes => {}
        () = deaf => {}
    }
}
