//! Which addresses and URLs are forbidden.

use proptest::prelude::*;

use super::*;

fn target(text: &str) -> TargetUrl {
    text.parse()
        .unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// Whether a default policy lets a URL of this text through to the resolver.
fn passes(text: &str) -> bool {
    text.parse()
        .is_ok_and(|url| EgressPolicy::default().check_url(&url).is_ok())
}

#[track_caller]
fn check(public: bool, addresses: &str) {
    for address in addresses.split_whitespace() {
        let verdict = EgressPolicy::default().check(address.parse().unwrap());
        assert_eq!(verdict.is_ok(), public, "{address}: {verdict:?}");
    }
}

#[test]
fn special_ipv4_addresses_are_not_public() {
    check(false, "127.0.0.1 127.255.255.254 0.0.0.0 0.1.2.3");
    check(false, "10.0.0.0 10.255.255.255 172.16.0.1 172.31.255.255");
    check(false, "192.168.0.1 192.168.255.255 169.254.0.1");
    check(false, "100.64.0.1 100.127.255.255");
    check(false, "192.0.0.192 192.0.2.1 198.51.100.1 203.0.113.1");
    check(false, "192.88.99.1 198.18.0.1 198.19.255.255");
    check(false, "224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255");
}

#[test]
fn metadata_services_are_not_public() {
    check(false, "169.254.169.254 169.254.170.2 100.100.100.200");
    check(false, "168.63.129.16 fd00:ec2::254");
}

#[test]
fn special_ipv6_addresses_are_not_public() {
    check(
        false,
        ":: ::1 fe80::1 febf::1 fc00::1 fdff::1 fec0::1 ff02::1",
    );
    check(
        false,
        "2001:db8::1 3fff::1 3fff:fff::1 100::1 5f00::1 3ffe::1",
    );
}

#[test]
fn ipv4_inside_ipv6_is_not_public_even_if_it_were_alone() {
    check(false, "::ffff:127.0.0.1 ::ffff:7f00:1 ::127.0.0.1");
    check(false, "::ffff:0:127.0.0.1 ::ffff:9.9.9.9 2002:7f00:1::");
    check(false, "64:ff9b::7f00:1 64:ff9b::909:909 64:ff9b:1::7f00:1");
    check(false, "2001:0:7f00:1:: ::5efe:10.0.0.1");
    check(false, "2a00::5efe:10.0.0.1 2a00::200:5efe:10.0.0.1");
}

#[test]
fn public_addresses_are_accepted_up_to_the_edges() {
    check(true, "1.0.0.0 9.9.9.9 11.0.0.0 126.255.255.255 128.0.0.0");
    check(
        true,
        "100.63.255.255 100.128.0.0 168.63.129.15 168.63.129.17",
    );
    check(
        true,
        "169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0",
    );
    check(true, "192.0.1.0 192.167.255.255 192.169.0.0");
    check(true, "198.17.255.255 198.20.0.0 223.255.255.255");
    check(
        true,
        "2001:200::1 2003::1 2606:4700::1111 2a00:1450::1 3fff:1000::1",
    );
}

#[test]
fn every_spelling_of_an_address_is_judged_as_the_address() {
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "0",
        "0x7f.1",
        "127.0.0.1.",
        "017700000001",
        "0X7F.0.0.1",
        "１２７.0.0.1",
        "１２７．１",
        "127。0。0。1",
        "127｡0｡0｡1",
        "①②⑦.0.0.1",
        "%31%32%37.0.0.1",
        "%31%32%37%2e%30%2e%30%2e%31",
        "0xa9fea9fe",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:0:0:1]",
        "[::]",
        "[64:ff9b::169.254.169.254]",
    ] {
        let url = target(&format!("http://{host}/"));
        assert!(url.literal_address().is_some(), "{host} is not an address");
        assert!(!passes(&format!("http://{host}/")), "{host} was accepted");
    }
    assert!(passes("http://9.9.9.9/"));
}

#[test]
fn names_that_are_local_by_definition_are_refused() {
    for host in [
        "localhost",
        "localhost.",
        "LOCALHOST",
        "a.localhost",
        "a.b.localhost.",
        "%6c%6fcalhost",
        "ｌｏｃａｌｈｏｓｔ",
        "metadata.google.internal",
        "Metadata.Google.Internal.",
    ] {
        assert!(!passes(&format!("https://{host}/")), "{host} was accepted");
    }
    // What these resolve to is judged when they are dialled.
    for host in [
        "localtest.me",
        "127.0.0.1.nip.io",
        "notlocalhost",
        "bücher.example",
    ] {
        assert!(passes(&format!("https://{host}/")), "{host} was refused");
    }
}

#[test]
fn a_text_that_parsers_could_read_differently_is_no_target() {
    use TargetUrlError::{Characters, Fragment, Malformed, Scheme, TooLong, UserInformation};
    let long = format!("https://a.example/{}", "x".repeat(2000));
    let grows = format!("https://a.example/{}", "ü".repeat(900));
    for (text, error) in [
        ("", Malformed),
        ("example.com/hooks", Malformed),
        ("//example.com/", Malformed),
        ("http://", Malformed),
        ("http:///example.com/", Malformed),
        ("http:example.com", Malformed),
        ("http:/example.com", Malformed),
        ("http:/@127.0.0.1/", Malformed),
        ("http:////@127.0.0.1/", Malformed),
        ("http://[fe80::1%25eth0]/", Malformed),
        ("http://127.0.0.1:99999/", Malformed),
        ("http://256.256.256.256/", Malformed),
        ("http://a%00b/", Malformed),
        ("http://ok@127.0.0.1/", UserInformation),
        ("http://ok:80@127.0.0.1/", UserInformation),
        ("http://@127.0.0.1/", UserInformation),
        ("http://:@127.0.0.1/", UserInformation),
        ("http://a@b@127.0.0.1/", UserInformation),
        ("http://127.0.0.1#@ok", Fragment),
        ("https://a.example/#", Fragment),
        (r"http:\\127.0.0.1", Characters),
        (r"http://a.example\@127.0.0.1/", Characters),
        ("http://a.example/\r\nx: y", Characters),
        ("http://a.example/a b", Characters),
        (" http://a.example/", Characters),
        ("http://a.ex\tample/", Characters),
        ("http://a.example/\u{2028}", Characters),
        ("ftp://a.example/", Scheme("ftp".to_owned())),
        ("file:///etc/passwd", Scheme("file".to_owned())),
        ("gopher://127.0.0.1:6379/_x", Scheme("gopher".to_owned())),
        ("javascript:alert(1)", Scheme("javascript".to_owned())),
        (&long, TooLong),
        (&grows, TooLong),
    ] {
        assert_eq!(text.parse::<TargetUrl>(), Err(error), "{text:?}");
    }
}

#[test]
fn honest_urls_are_targets() {
    for (text, written) in [
        ("https://example.com", "https://example.com/"),
        (
            "HTTPS://Example.COM:443/Hooks?a=b@c",
            "https://example.com/Hooks?a=b@c",
        ),
        (
            "http://a.example:8080/x%0d%0ay",
            "http://a.example:8080/x%0d%0ay",
        ),
        (
            "https://bücher.example/ü",
            "https://xn--bcher-kva.example/%C3%BC",
        ),
        ("https://9.9.9.9/", "https://9.9.9.9/"),
        (
            "https://[2606:4700::1111]:8443/",
            "https://[2606:4700::1111]:8443/",
        ),
    ] {
        assert_eq!(target(text).to_string(), written);
        assert!(passes(text), "{text} was refused");
    }
}

#[test]
fn ports_of_other_protocols_are_refused_outside_allowed_networks() {
    for port in [22, 25, 6379, 5672, 15672, 0] {
        for host in ["a.example", "9.9.9.9"] {
            let url = target(&format!("http://{host}:{port}/"));
            let verdict = EgressPolicy::default().check_url(&url);
            assert_eq!(verdict, Err(BlockedTarget::Port(port)), "{url}");
        }
    }
    for port in [80, 443, 3000, 8080, 8443] {
        assert!(passes(&format!("https://a.example:{port}/")), "{port}");
    }
    let open = EgressPolicy::allowing(vec!["10.1.0.0/16".parse().unwrap()]);
    assert_eq!(open.check_url(&target("http://10.1.2.3:5672/")), Ok(()));
}

#[test]
fn an_allowed_network_opens_itself_and_nothing_else() {
    let open = EgressPolicy::allowing(vec!["127.0.0.0/8".parse().unwrap()]);
    for (text, passes) in [
        ("http://127.0.0.1:9000/", true),
        ("http://localhost/", true),
        ("http://a.localhost/", true),
        ("http://[::1]/", false),
        ("http://[::ffff:127.0.0.1]/", false),
        ("http://10.0.0.1/", false),
        ("http://169.254.169.254/", false),
        ("http://metadata.google.internal/", false),
        ("http://9.9.9.9/", true),
    ] {
        assert_eq!(open.check_url(&target(text)).is_ok(), passes, "{text}");
    }
}

/// The rule in other words: octets and the standard library's predicates instead of networks.
fn naively_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_documentation()
                || v4.is_multicast()
                || matches!(a, 0 | 240..=255)
                || (a == 100 && b & 0xc0 == 64)
                || (a == 198 && matches!(b, 18 | 19))
                || (a, b, c) == (192, 0, 0)
                || (a, b, c) == (192, 88, 99)
                || v4 == Ipv4Addr::new(168, 63, 129, 16)
        }
        IpAddr::V6(v6) => {
            let [a, b, .., e, f, _, _] = v6.segments();
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.to_ipv4().is_some()
                || a & 0xffc0 == 0xfec0
                || matches!(a, 0x64 | 0x100 | 0x2002 | 0x5f00)
                || (a == 0x2001 && matches!(b, 0 | 0xdb8))
                || (a == 0x3fff && b < 0x1000)
                || (matches!(e, 0 | 0x200) && f == 0x5efe)
        }
    }
}

prop_compose! {
    /// Addresses near the edges of forbidden networks, which uniform ones would hardly meet.
    fn near_an_edge()(which in 0..25_usize, bits: u128, side in 0..3_u8) -> IpAddr {
        if let Some((net, _)) = FORBIDDEN_V4.get(which) {
            let host = bits as u32 & u32::from(net.hostmask());
            let inside = u32::from(net.network()) | host;
            let chosen = match side {
                0 => inside,
                1 => u32::from(net.network()).wrapping_sub(1),
                _ => u32::from(net.broadcast()).wrapping_add(1),
            };
            return IpAddr::V4(Ipv4Addr::from(chosen));
        }
        let (net, _) = FORBIDDEN_V6[which - FORBIDDEN_V4.len()];
        let host = bits & u128::from(net.hostmask());
        let chosen = match side {
            0 => u128::from(net.network()) | host,
            1 => u128::from(net.network()) - 1,
            _ => bits >> 64 << 32 | 0x5efe_0000_0000 | bits & 0xffff_ffff,
        };
        IpAddr::V6(Ipv6Addr::from(chosen))
    }
}

proptest! {
    #[test]
    fn no_address_that_the_naive_rule_forbids_passes(
        address in prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
            any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits))),
            (0..0x1_0000_0000_u128).prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits | 0xffff << 32))),
            near_an_edge(),
        ],
    ) {
        let verdict = EgressPolicy::default().check(address);
        prop_assert!(!naively_forbidden(address) || verdict.is_err(), "{} passed", address);
    }

    #[test]
    fn a_target_reads_back_what_it_prints(
        host in "[a-zü。]{1,8}(\\.[a-z]{1,5})?",
        path in "[ -~ü]{0,300}",
    ) {
        if let Ok(target) = format!("https://{host}/{path}").parse::<TargetUrl>() {
            prop_assert_eq!(target.to_string().parse(), Ok(target));
        }
    }
}
