//! The bucket that a request's address names, in its host or in its path, for what is looked at before s3s reads it.

use hyper::header::HOST;
use hyper::{HeaderMap, Uri};

use super::convert;

/// The bucket that a request names, and the rest of its path. `domains` are those whose sub-domains name buckets.
pub(super) fn bucket_and_rest<'a>(uri: &'a Uri, headers: &'a HeaderMap, domains: &[String]) -> (String, &'a str) {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).or_else(|| uri.host()).unwrap_or_default();
    let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
    let in_host = domains.iter().find_map(|domain| {
        let domain = domain.rsplit_once(':').map_or(domain.as_str(), |(bare, _)| bare);
        bare.strip_suffix(domain)?.strip_suffix('.')
    });
    let path = uri.path().trim_start_matches('/');
    let (bucket, rest) = match in_host {
        Some(bucket) => (bucket, path),
        None => path.split_once('/').unwrap_or((path, "")),
    };
    (convert::url_decode(bucket).unwrap_or_default(), rest)
}

/// The bucket, where the address names nothing but one.
pub(super) fn bucket_alone(uri: &Uri, headers: &HeaderMap, domains: &[String]) -> Option<String> {
    let (bucket, rest) = bucket_and_rest(uri, headers, domains);
    (rest.is_empty() && !bucket.is_empty()).then_some(bucket)
}

#[cfg(test)]
mod tests {
    //! Buckets are found in the path and in the host, escaped or not, and an object's address is none of a bucket.
    use super::*;

    #[test]
    fn buckets_are_found() {
        let domains = ["s3.example.internal:9000".to_owned()];
        let alone = |path: &str, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            bucket_alone(&path.parse().unwrap(), &headers, &domains)
        };
        for (path, host, bucket) in [
            ("/data?batch-get", "localhost:9000", "data"),
            ("/data/", "localhost", "data"),
            ("/data%40v1", "localhost", "data@v1"),
            ("/data@v1", "localhost", "data@v1"),
            ("/", "data.s3.example.internal", "data"),
            ("/", "data_at_v1.s3.example.internal:9000", "data_at_v1"),
            ("/data", "s3.example.internal", "data"),
        ] {
            assert_eq!(alone(path, host).as_deref(), Some(bucket), "{host}{path}");
        }
        for (path, host) in
            [("/", "localhost"), ("/data/key", "localhost"), ("/key", "data.s3.example.internal"), ("/%zz", "x")]
        {
            assert_eq!(alone(path, host), None, "{host}{path}");
        }
    }
}
