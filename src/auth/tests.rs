//! Keys work for who made them and for nobody else, survive a restart, die at once, and lie encrypted; sessions need
//! their own token, end in time, and die with their key; a wrong secret or master key opens nothing.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::meta::Embedded;
use crate::model::Secret;
use master::test_source;

fn root() -> RootCredentials {
    RootCredentials { access_key: "ROOTKEY".into(), secret_key: Secret::new("rootsecret") }
}

fn basic(pair: &str) -> String {
    format!("Basic {}", base64::encode(pair.as_bytes()))
}

struct Fixture {
    dir: tempfile::TempDir,
    meta: Arc<dyn Meta>,
    auth: Auth,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let meta: Arc<dyn Meta> = Embedded::open(&dir.path().join("meta")).unwrap();
        let auth = Auth::open(meta.clone(), root(), &test_source(dir.path())).await.unwrap();
        auth.create_tenant("lab").await.unwrap();
        Self { dir, meta, auth }
    }

    async fn reopened(&self) -> Result<Auth, AuthError> {
        Auth::open(self.meta.clone(), root(), &test_source(self.dir.path())).await
    }

    async fn key(&self, user: Option<&str>) -> NewKey {
        let user = user.map(str::to_owned);
        self.auth.create_key(NewKeyRequest { tenant: "lab".into(), user, ..NewKeyRequest::default() }).await.unwrap()
    }

    /// Disabled or enabled, by whoever; the secrets must be asked for anew each time.
    async fn works(&self, access_key: &str) -> bool {
        let secret = self.auth.secret_of(access_key).await.unwrap();
        let admitted = self.auth.admit(access_key, None).await;
        assert_eq!(secret.is_some(), admitted.is_ok());
        secret.is_some()
    }
}

fn for_lab() -> NewKeyRequest {
    NewKeyRequest { tenant: "lab".into(), ..NewKeyRequest::default() }
}

#[tokio::test]
async fn keys_belong_to_tenants_and_their_users() {
    let fixture = Fixture::new().await;
    let auth = &fixture.auth;
    let nobodys = NewKeyRequest { tenant: "none".into(), ..NewKeyRequest::default() };
    assert!(matches!(auth.create_key(nobodys).await, Err(AuthError::NoSuchTenant(_))));
    assert!(matches!(auth.create_tenant("lab").await, Err(AuthError::TenantExists(_))));
    assert!(matches!(auth.create_tenant(ROOT).await, Err(AuthError::BadName(_))));
    let (plain, anns) = (fixture.key(None).await, fixture.key(Some("ann")).await);
    for (access_key, good) in [(plain.access_key.as_str(), false), ("ROOTKEY", false), ("ASIA99", false), ("NEW", true)]
    {
        let pair = Some((access_key.to_owned(), Secret::new("another-secret")));
        assert_eq!(auth.create_key(NewKeyRequest { pair, ..for_lab() }).await.is_ok(), good, "{access_key}");
    }
    for user in ["", "root", "a/b", "a b"] {
        let request = NewKeyRequest { user: Some(user.into()), ..for_lab() };
        assert!(matches!(auth.create_key(request).await, Err(AuthError::BadName(_))), "{user}");
    }

    let auth = fixture.reopened().await.unwrap();
    let who = auth.admit(&plain.access_key, None).await.unwrap();
    assert_eq!((who.principal, who.temporary), (Principal::Tenant("lab".into()), false));
    let ann = auth.admit(&anns.access_key, None).await.unwrap().principal;
    assert_eq!(ann.arn(), "arn:aws:iam::lab:user/ann");
    assert_eq!(auth.admit("ROOTKEY", None).await.unwrap().principal, Principal::Root);
    assert_eq!(auth.secret_of(&anns.access_key).await.unwrap().unwrap().reveal(), anns.secret_key);
    assert_eq!(auth.secret_of("NOBODY").await.unwrap(), None);
    assert!(matches!(auth.admit("NOBODY", None).await, Err(Refusal::UnknownKey)));
    assert!(matches!(auth.admit(&plain.access_key, Some("x")).await, Err(Refusal::BadToken)));
    assert_eq!(auth.list_keys().await.unwrap().len(), 3);
    assert_eq!(auth.list_tenants().await.unwrap()[0].name, "lab");
}

#[tokio::test]
async fn basic_headers_are_checked() {
    let fixture = Fixture::new().await;
    let auth = &fixture.auth;
    assert_eq!(auth.check_basic(&basic("ROOTKEY:rootsecret")).await.unwrap(), Some(Principal::Root));
    for header in [&basic("ROOTKEY:wrong"), &basic("ROOTKEY"), "Basic !", "Bearer x", "Basic A", ""] {
        assert_eq!(auth.check_basic(header).await.unwrap(), None, "{header}");
    }
    let caller = auth.admit("ROOTKEY", None).await.unwrap();
    let session = auth.session_token(&caller, None).await.unwrap();
    let pair = format!("{}:{}", session.access_key, session.secret_key.reveal());
    assert_eq!(auth.check_basic(&basic(&pair)).await.unwrap(), None);
}

#[tokio::test]
async fn keys_stop_and_go_at_once() {
    let fixture = Fixture::new().await;
    let access_key = fixture.key(None).await.access_key;
    for _ in 0..3 {
        assert!(fixture.works(&access_key).await);
        assert_eq!(fixture.auth.set_disabled(&access_key, true).await.unwrap().state, KeyState::Disabled);
        assert!(!fixture.works(&access_key).await);
        assert!(fixture.reopened().await.unwrap().admit(&access_key, None).await.is_err());
        assert_eq!(fixture.auth.set_disabled(&access_key, false).await.unwrap().state, KeyState::Active);
    }
    fixture.auth.remove_key(&access_key).await.unwrap();
    assert!(!fixture.works(&access_key).await);
    assert!(matches!(fixture.auth.remove_key(&access_key).await, Err(AuthError::NoSuchKey(_))));
    assert!(matches!(fixture.auth.set_disabled("ROOTKEY", true).await, Err(AuthError::IsRoot(_))));

    let expires = Some(clock::now().plus(Duration::from_millis(300)));
    let key = fixture.auth.create_key(NewKeyRequest { expires, ..for_lab() }).await.unwrap();
    assert!(fixture.works(&key.access_key).await);
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert!(!fixture.works(&key.access_key).await);
    assert_eq!(fixture.auth.list_keys().await.unwrap()[0].state, KeyState::Expired);
    let past = NewKeyRequest { expires: Some(clock::now()), ..for_lab() };
    assert!(matches!(fixture.auth.create_key(past).await, Err(AuthError::BadName(_))));
}

/// The bytes of every row of the keys.
async fn key_rows(meta: &dyn Meta) -> String {
    rows(meta, b"k/").await.unwrap().iter().map(|(_, row)| String::from_utf8_lossy(row).into_owned()).collect()
}

#[tokio::test]
async fn secrets_lie_encrypted_and_old_rows_become_so() {
    let fixture = Fixture::new().await;
    let key = fixture.key(None).await;
    let old = r#"{"version":1,"secret_key":"old-secret","tenant":"lab","created":"2026-01-02T03:04:05.678Z"}"#;
    fixture.meta.commit(Transaction::new().put(key::key_key("OLD"), old)).await.unwrap();
    assert!(matches!(fixture.auth.secret_of("OLD").await, Err(AuthError::Version { version: 1, .. })));
    let auth = fixture.reopened().await.unwrap();
    let stored = key_rows(&*fixture.meta).await;
    assert!(!stored.contains("old-secret") && !stored.contains(&key.secret_key), "{stored}");
    assert_eq!(auth.secret_of("OLD").await.unwrap().unwrap().reveal(), "old-secret");
    let listed = auth.list_keys().await.unwrap().into_iter().find(|key| key.access_key == "OLD").unwrap();
    assert_eq!((listed.created.to_string().as_str(), listed.user), ("2026-01-02T03:04:05.678Z", None));

    // A secret does not open in another key's row, nor as another tenant's.
    let row = fixture.meta.get(&key::key_key(&key.access_key)).await.unwrap().unwrap();
    let moved = String::from_utf8(row.to_vec()).unwrap().replace("\"lab\"", "\"root2\"");
    let change = Transaction::new().put(key::key_key("MOVED"), row).put(key::key_key(&key.access_key), moved);
    fixture.meta.commit(change).await.unwrap();
    let auth = fixture.reopened().await.unwrap();
    for access_key in ["MOVED", &key.access_key] {
        assert!(matches!(auth.secret_of(access_key).await, Err(AuthError::Damaged { .. })));
    }
}

#[tokio::test]
async fn a_wrong_or_lost_master_key_is_said_at_once() {
    let fixture = Fixture::new().await;
    fixture.key(None).await;
    let file = fixture.dir.path().join("master.key");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(fixture.reopened().await, Err(AuthError::Master(MasterError::Missing { .. }))));
    assert!(!file.exists(), "a lost key is not replaced");
    files::write_whole(fixture.dir.path(), "master.key", &"0".repeat(64)).unwrap();
    assert!(matches!(fixture.reopened().await, Err(AuthError::Master(MasterError::Wrong { .. }))));
    files::write_whole(fixture.dir.path(), "master.key", &text).unwrap();
    assert_eq!(fixture.reopened().await.unwrap().list_keys().await.unwrap().len(), 1);

    std::fs::remove_file(&file).unwrap();
    assert_eq!(forget_keys(&*fixture.meta).await.unwrap(), 1);
    let auth = fixture.reopened().await.unwrap();
    assert_eq!((auth.list_keys().await.unwrap().len(), auth.list_tenants().await.unwrap().len()), (0, 1));
    assert_ne!(std::fs::read_to_string(&file).unwrap(), text);
}

fn refusal(outcome: Result<Caller, Refusal>) -> String {
    outcome.unwrap_err().to_string()
}

#[tokio::test]
async fn sessions_need_their_own_token_and_die_with_their_key() {
    let fixture = Fixture::new().await;
    let auth = &fixture.auth;
    let key = fixture.key(Some("ann")).await;
    let caller = auth.admit(&key.access_key, None).await.unwrap();
    let role = "arn:aws:iam::lab:role/reader";
    let first = auth.assume_role(&caller, role, "s-1", None).await.unwrap();
    let second = auth.session_token(&caller, Some(900)).await.unwrap();
    let (id, token) = (first.access_key.as_str(), first.token.reveal());
    assert_eq!(first.principal.arn(), "arn:aws:sts::lab:assumed-role/reader/s-1");
    let again = fixture.reopened().await.unwrap();
    assert_eq!(again.secret_of(id).await.unwrap().unwrap(), first.secret_key);
    assert_eq!(again.admit(id, Some(token)).await.unwrap().principal, first.principal);
    let itself = auth.admit(&second.access_key, Some(second.token.reveal())).await.unwrap();
    assert_eq!((itself.principal.arn().as_str(), itself.temporary), ("arn:aws:iam::lab:user/ann", true));

    let bad = Refusal::BadToken.to_string();
    assert_eq!(refusal(auth.admit(id, None).await), bad);
    assert_eq!(refusal(auth.admit(id, Some(second.token.reveal())).await), bad);
    let bytes = base64::decode(token).unwrap();
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 0x40;
        assert_eq!(refusal(auth.admit(id, Some(&base64::encode(&altered))).await), bad, "byte {at}");
    }
    assert_eq!(refusal(auth.admit(id, Some(&format!("{token}="))).await), bad);
    let unmarked = format!("{}{}", &id[..27], if id.ends_with('A') { 'B' } else { 'A' });
    assert_eq!(auth.secret_of(&unmarked).await.unwrap(), None);

    let known = again.admit(&key.access_key, None).await.unwrap();
    let denied = auth.session_token(&itself, None).await;
    assert!(matches!(denied, Err(SessionError::Denied(_))), "{denied:?}");
    auth.set_disabled(&key.access_key, true).await.unwrap();
    let unknown = Refusal::UnknownKey.to_string();
    assert_eq!(refusal(auth.admit(id, Some(token)).await), unknown);
    assert!(matches!(auth.assume_role(&known, role, "s-1", None).await, Err(SessionError::Denied(_))));
    auth.set_disabled(&key.access_key, false).await.unwrap();
    assert!(auth.admit(id, Some(token)).await.is_ok());
    auth.remove_key(&key.access_key).await.unwrap();
    assert_eq!(refusal(auth.admit(id, Some(token)).await), unknown);
    let pair = Some((key.access_key.clone(), Secret::new("another-secret")));
    auth.create_key(NewKeyRequest { pair, user: Some("ann".into()), ..for_lab() }).await.unwrap();
    assert_eq!(refusal(auth.admit(id, Some(token)).await), unknown, "made anew, it is another key");
}

#[tokio::test]
async fn roles_are_ones_own_tenants_and_sessions_are_bounded() {
    let fixture = Fixture::new().await;
    let auth = &fixture.auth;
    auth.create_tenant("other").await.unwrap();
    let lab = auth.admit(&fixture.key(None).await.access_key, None).await.unwrap();
    let root = auth.admit("ROOTKEY", None).await.unwrap();
    for (caller, arn, session, seconds, good) in [
        (&lab, "arn:aws:iam::lab:role/r", "s-1", None, true),
        (&lab, "arn:aws:iam::lab:role/r", "s-1", Some(900), true),
        (&lab, "arn:aws:iam::lab:role/r", "s-1", Some(43_200), true),
        (&lab, "arn:aws:iam::lab:role/r", "s-1", Some(899), false),
        (&lab, "arn:aws:iam::lab:role/r", "s-1", Some(43_201), false),
        (&lab, "arn:aws:iam::lab:role/r", "s", None, false),
        (&lab, "arn:aws:iam::lab:user/r", "s-1", None, false),
        (&lab, "arn:aws:iam::other:role/r", "s-1", None, false),
        (&lab, "arn:aws:iam::none:role/r", "s-1", None, false),
        (&root, "arn:aws:iam::other:role/r", "s-1", None, true),
        (&root, "arn:aws:iam::none:role/r", "s-1", None, false),
    ] {
        let session = auth.assume_role(caller, arn, session, seconds).await;
        assert_eq!(session.is_ok(), good, "{arn} {seconds:?}");
    }
    let of_root = auth.assume_role(&root, "arn:aws:iam::other:role/r", "s-1", None).await.unwrap();
    assert!(of_root.principal.may_use("other") && !of_root.principal.may_use("lab"));

    // A session ends when its key does, and says so.
    let soon = clock::now().plus(Duration::from_millis(2_000));
    let key = auth.create_key(NewKeyRequest { expires: Some(soon), ..for_lab() }).await.unwrap();
    let caller = auth.admit(&key.access_key, None).await.unwrap();
    let session = auth.session_token(&caller, None).await.unwrap();
    assert!(session.expires <= soon);
    while clock::now() < session.expires {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let outcome = auth.admit(&session.access_key, Some(session.token.reveal())).await;
    assert!(matches!(outcome, Err(Refusal::Expired)), "{outcome:?}");
    assert!(!format!("{session:?}").contains(session.secret_key.reveal()));
}

/// Nothing that is printed for programmers shows a secret.
#[tokio::test]
async fn debug_prints_show_no_secret() {
    let fixture = Fixture::new().await;
    let key = fixture.key(None).await;
    let printed = format!("{:?} {:?} {:?}", fixture.auth, key, root());
    assert!(!printed.contains(&key.secret_key) && !printed.contains("rootsecret"), "{printed}");
    assert!(Path::new(&fixture.dir.path().join("master.key")).exists());
}
