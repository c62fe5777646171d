//! Arguments that are not accepted, each with what it gets: the argument at fault, what is wrong, what would be accepted.

use clap::Parser as _;

use crate::Args;

/// The command, its arguments, and what is said of the last of them.
#[rustfmt::skip]
const BAD_ARGUMENTS: &[(&str, &str, &str)] = &[
    ("endpoints add --url https://a.example/ --tenant", "a.b", "'--tenant <TENANT>': tenant must be 1 to"),
    ("endpoints add --tenant t --url", "hooks", "'--url <URL>': not a URL: accepted is an absolute URL"),
    ("endpoints add --tenant t --url", "ftp://a.example/", "scheme `ftp` is not accepted: use https"),
    ("endpoints add --tenant t --url https://a.example/ --types", "a*", "'--types <TYPES>': `a*` is not an event type pattern: accepted are"),
    ("endpoints add --tenant t --url https://a.example/ --rate", "50", "'--rate <RATE>': `50` is not a rate: accepted are"),
    ("endpoints add --tenant t --url https://a.example/ --schedule", "5,x", "'--schedule <WAITS>': `5,x` is not a schedule: accepted are"),
    ("endpoints add --tenant t --url https://a.example/ --schedule", "exponential(base=5s)", "is not a schedule: accepted are"),
    ("endpoints add --tenant t --url https://a.example/ --timeout", "soon", "'--timeout <DURATION>': "),
    ("endpoints add --tenant t --url https://a.example/ --success", "ok", "'--success <STATUSES>': `ok` is not a set of status codes: accepted are"),
    ("endpoints add --tenant t --url https://a.example/ --disable-after", "x", "'--disable-after <RULES>': an endpoint is disabled `never`"),
    ("endpoints add --tenant t --url https://a.example/ --profile", "x", "'--profile <PROFILE>': accepted is `standard`"),
    ("endpoints add --tenant t --url https://a.example/ --format", "x", "'--format <FORMAT>': accepted is `standard`"),
    ("endpoints add --tenant t --url https://a.example/ --signature", "x", "'--signature <SIGNATURE>': accepted is `standard`"),
    ("endpoints add --tenant t --url https://a.example/ --header", "x", "'--header <NAME: VALUE>': "),
    ("endpoints add --tenant t --url https://a.example/ --header", "host: x", "is set by Fanfare or by HTTP itself"),
    ("endpoints add --tenant t --url https://a.example/ --auth", "{}", "'--auth <JSON>': "),
    ("endpoints add --tenant t --url https://a.example/ --http-version", "3", "'--http-version <VERSION>': accepted is `auto`"),
    ("endpoints rotate-secret ep_1 --tenant", "t", "endpoint id must be"),
];

#[test]
fn bad_arguments_are_refused_by_name_with_what_is_accepted() {
    let mut wrong = Vec::new();
    for (command, value, said) in BAD_ARGUMENTS {
        let line = ["fanfare"].into_iter().chain(command.split(' '));
        let told = match Args::try_parse_from(line.chain([*value])) {
            Ok(_) => "accepted".to_owned(),
            Err(refused) => refused.to_string(),
        };
        if !told.contains(said) {
            wrong.push(format!("{command} {value}: {told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
