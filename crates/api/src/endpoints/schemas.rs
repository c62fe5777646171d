//! What the description of the API says about members that other crates read and write.

use utoipa::{
    ToSchema,
    openapi::{
        ArrayBuilder, ObjectBuilder, OneOfBuilder, RefOr, Schema, SchemaFormat,
        schema::{KnownFormat, Type},
    },
};

/// When failures in a row disable an endpoint: by whichever rule applies first.
#[derive(ToSchema)]
#[schema(as = DisableAfter)]
#[expect(
    dead_code,
    reason = "it describes `DisableAfter`, which is read and shown instead"
)]
pub(super) struct DisableRules {
    /// After this many failed attempts in a row.
    #[schema(minimum = 1)]
    consecutive_failures: Option<u32>,
    /// When an attempt fails and none succeeded for this many seconds, at most 365 days.
    #[schema(minimum = 1)]
    failing_for: Option<u64>,
}

/// A list of seconds, or the members of an exponential schedule.
pub(super) fn schedule_schema() -> RefOr<Schema> {
    let whole = |description| {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(0))
            .description(description)
    };
    let factor = ObjectBuilder::new()
        .schema_type(Type::Number)
        .description(Some(
            "By how much each wait is longer than the one before: 1 to 100.",
        ));
    let growing = ObjectBuilder::new()
        .property(
            "base",
            whole(Some("Seconds from the first to the second attempt.")),
        )
        .property("factor", factor)
        .property("cap", whole(Some("The longest wait, in seconds.")))
        .property(
            "attempts",
            whole(Some("How many attempts there are: 1 to 50.")),
        )
        .property(
            "window",
            whole(Some(
                "No attempt is scheduled later than this many seconds after the first failure.",
            )),
        );
    let growing = ["base", "factor", "cap", "attempts"]
        .into_iter()
        .fold(growing, ObjectBuilder::required);
    let listed = ArrayBuilder::new().items(whole(None::<&str>));
    OneOfBuilder::new().item(listed).item(growing).into()
}

/// What proves to a receiver who calls it.
#[derive(ToSchema)]
#[schema(as = Auth)]
#[expect(dead_code, reason = "it describes `AuthForm`, which is read instead")]
pub(super) struct AuthMembers {
    /// `basic`, `bearer` or `oauth2`.
    kind: String,
    /// With `basic`: the user name.
    username: Option<String>,
    /// With `basic`: the password.
    password: Option<String>,
    /// With `bearer`: the token.
    token: Option<String>,
    /// With `oauth2`: where tokens are fetched, by client credentials.
    #[schema(format = "uri")]
    token_url: Option<String>,
    /// With `oauth2`: who asks.
    client_id: Option<String>,
    /// With `oauth2`: what proves it.
    client_secret: Option<String>,
    /// With `oauth2`: what the token is for.
    scope: Option<String>,
    /// With `oauth2`: whom the token is for.
    audience: Option<String>,
    /// With `oauth2`: whether the id and the secret stand in the header (`basic`) or the `body`.
    client_auth: Option<String>,
}

/// The name of a signature that others made known, or its members.
pub(super) fn signature_schema() -> RefOr<Schema> {
    let text = |description: &str| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(description.to_owned()))
    };
    let named = text("`standard`, `github`, `shopify`, `stripe` or `referralhero`.");
    let custom = ObjectBuilder::new()
        .property("header", text("The header that has the signature."))
        .property("prefix", text("What stands before it, such as `sha256=`."))
        .property("encoding", text("`hex` or `base64`."))
        .property(
            "timestamp",
            text("`none`, `inline` (`t=…,` before it), or the header that has the signed time."),
        )
        .required("header");
    OneOfBuilder::new().item(named).item(custom).into()
}
