//! What every store of the registry must do, as functions over [`Registry`].

#![allow(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::{collections::HashSet, sync::Arc, time::Duration};

use fanfare_model::{
    Auth, BodyFormat, ClientCertificate, DatabaseLocation, DisabledReason, Endpoint, EndpointId,
    EndpointState, HeaderField, HttpVersion, Profile, RetiringSecret, Schedule, Secret,
    SigningSecret, StateChange, TenantId, Timestamp, TlsIdentity,
};
use fanfare_registry::{
    AuditPage, CatalogueFile, EndpointFilter, EndpointPage, NewEndpoint, REFERRAL_CATALOGUE,
    Registry, RegistryFault, Rotation, Settings, Snapshot, migrate, migrations,
};
use fanfare_testkit::TestDatabase;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use uuid::Uuid;

/// Runs each named check against a fresh registry of each kind.
macro_rules! conformance {
    ($($check:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test]
                async fn $check() {
                    let folder = tempfile::tempdir().unwrap();
                    let database = folder.path().join("fanfare.db").into();
                    super::run(database, async |registry| super::$check(registry).await).await;
                }
            )*
        }

        mod postgres {
            use fanfare_testkit::TestDatabase;

            $(
                #[tokio::test]
                async fn $check() {
                    let database = TestDatabase::new();
                    let location = database.location();
                    super::run(location, async |registry| super::$check(registry).await).await;
                }
            )*
        }
    };
}

conformance![
    an_endpoint_reads_back_as_it_was_created,
    a_text_that_signs_reads_back,
    a_secret_is_generated_when_none_is_given,
    an_unacceptable_endpoint_is_refused_and_changes_nothing,
    pages_follow_each_other_by_id,
    a_filter_finds_what_it_accepts_page_by_page,
    a_tenant_sees_and_changes_only_its_own,
    a_state_is_kept_until_the_next,
    every_change_of_an_endpoint_is_a_new_version,
    a_load_holds_every_endpoint_at_its_version,
    a_load_takes_from_the_last_one_what_has_not_changed,
    every_change_leaves_an_audit_entry,
    the_audit_log_is_searched_by_what_is_given,
    the_catalogue_of_event_types_is_kept_and_is_a_new_version,
    an_api_key_is_known_by_itself_alone,
    changes_at_once_are_all_kept,
    a_state_is_replaced_only_as_long_as_it_is_the_one_that_was_seen,
    of_changes_at_once_each_is_judged_by_what_is_stored,
    an_endpoint_is_replaced_only_as_long_as_it_is_the_one_that_was_seen,
    an_update_is_judged_anew_when_the_endpoint_was_changed_meanwhile,
    a_rotated_secret_is_kept_beside_the_one_before,
];

async fn run(database: DatabaseLocation, check: impl AsyncFnOnce(&Registry)) {
    let settings = Settings {
        database,
        encryption_key: Some(Secret::new("a".repeat(64))),
        ..Settings::default()
    };
    let registry = Registry::open(&settings).await.unwrap();
    check(&registry).await;
    registry.close().await;
}

fn now() -> Timestamp {
    "2026-11-23T15:04:05.123456789Z".parse().unwrap()
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn new(tenant_name: &str) -> NewEndpoint {
    NewEndpoint::new(
        tenant(tenant_name),
        "https://example.com/hooks?a=b".parse().unwrap(),
        vec!["reward.*".parse().unwrap()],
    )
}

async fn create(registry: &Registry, tenant_name: &str) -> Endpoint {
    registry
        .create_endpoint(new(tenant_name), "tester", now())
        .await
        .unwrap()
}

async fn an_endpoint_reads_back_as_it_was_created(registry: &Registry) {
    let full = NewEndpoint {
        description: "Ünïcode".to_owned(),
        filter: Some(r#"{"data":{"n":[{"numeric":[">",1]}]}}"#.parse().unwrap()),
        template: Some(
            serde_json::from_str(r#"{"preset":"telegram","parameters":{"chat_id":"1"}}"#).unwrap(),
        ),
        rate: Some("50/s burst 10".parse().unwrap()),
        max_in_flight: 3,
        timeout: Duration::from_millis(1500),
        schedule: Schedule::exponential(5, 1.5, 60, 7, Some(600)).unwrap(),
        success: "200".parse().unwrap(),
        permanent: "400,404".parse().unwrap(),
        disable_after: "10 failures or 1h".parse().unwrap(),
        secrets: vec![SigningSecret::generate(), SigningSecret::generate_private()],
        format: BodyFormat::CloudEventsBinary,
        auth: Some(Auth::Basic {
            username: "u".to_owned(),
            password: Secret::new("p".to_owned()),
        }),
        tls: TlsIdentity {
            client: Some(Box::new(ClientCertificate {
                chain: "chain".to_owned(),
                key: Secret::new("key".to_owned()),
            })),
            ca: Some("ca".into()),
        },
        headers: vec![HeaderField::new("x-a", "Bearer x").unwrap()],
        http_version: HttpVersion::Http2,
        request_origin: Some("events.example.com".parse().unwrap()),
        connect_timeout: Some(Duration::from_millis(1200)),
        retiring: vec![RetiringSecret {
            secret: SigningSecret::generate(),
            until: Timestamp::from_second(2_000_000_000).unwrap(),
        }],
        ..new("t")
    };
    let created = registry
        .create_endpoint(full.clone(), "tester", now())
        .await
        .unwrap();
    assert_eq!(created, full.registered(created.id, created.created_at));
    let skew = now().duration_since(created.created_at);
    assert!(skew.unsigned_abs() < Duration::from_micros(1));

    let read = registry.endpoint(&tenant("t"), created.id).await.unwrap();
    assert_eq!(read, Some(created));
}

async fn a_text_that_signs_reads_back(registry: &Registry) {
    let mut stripe = new("t");
    stripe.prefill(Profile::Stripe);
    let created = registry
        .create_endpoint(stripe, "tester", now())
        .await
        .unwrap();
    assert!(matches!(created.secrets[0], SigningSecret::Text(_)));
    let read = registry.endpoint(&tenant("t"), created.id).await.unwrap();
    assert_eq!(read, Some(created));
}

async fn a_secret_is_generated_when_none_is_given(registry: &Registry) {
    let (one, other) = (create(registry, "t").await, create(registry, "t").await);
    assert_eq!((one.secrets.len(), other.secrets.len()), (1, 1));
    assert_ne!(one.secrets, other.secrets);
}

async fn an_unacceptable_endpoint_is_refused_and_changes_nothing(registry: &Registry) {
    let mut bad = new("t");
    bad.max_in_flight = 0;
    let fault = registry
        .create_endpoint(bad, "tester", now())
        .await
        .unwrap_err();
    assert!(matches!(fault, RegistryFault::Invalid(_)), "{fault:?}");
    assert_eq!(registry.version().await.unwrap(), 0);
    assert_eq!(registry.audit(&AuditPage::latest(10)).await.unwrap(), []);
}

async fn pages_follow_each_other_by_id(registry: &Registry) {
    let mut created = HashSet::new();
    for n in 0..7 {
        created.insert(create(registry, ["t", "u"][n % 2]).await.id);
    }
    for (tenant_name, expected) in [(None, 7), (Some("t"), 4), (Some("u"), 3), (Some("v"), 0)] {
        let mut seen: Vec<EndpointId> = Vec::new();
        loop {
            let page = EndpointPage {
                tenant: tenant_name.map(tenant),
                after: seen.last().copied(),
                limit: 2,
                ..EndpointPage::default()
            };
            let endpoints = registry.endpoints(&page).await.unwrap();
            assert!(endpoints.len() <= 2);
            if endpoints.is_empty() {
                break;
            }
            seen.extend(endpoints.iter().map(|endpoint| endpoint.id));
        }
        assert_eq!(seen.len(), expected, "{tenant_name:?}");
        assert!(seen.is_sorted());
        assert!(seen.iter().all(|id| created.contains(id)));
    }
}

/// The endpoints that a filter accepts, read two at a time.
async fn filtered(registry: &Registry, filter: &EndpointFilter) -> Vec<EndpointId> {
    let mut found = Vec::new();
    loop {
        let page = EndpointPage {
            filter: filter.clone(),
            after: found.last().copied(),
            limit: 2,
            ..EndpointPage::default()
        };
        let endpoints = registry.endpoints(&page).await.unwrap();
        if endpoints.is_empty() {
            return found;
        }
        found.extend(endpoints.iter().map(|endpoint| endpoint.id));
    }
}

async fn a_filter_finds_what_it_accepts_page_by_page(registry: &Registry) {
    let mut raw = Vec::new();
    for n in 0..6 {
        let mut new = new("t");
        if n % 2 == 0 {
            new.url = format!("https://example.com/raw/{n}").parse().unwrap();
            new.format = BodyFormat::Raw;
        }
        let at = now() + Duration::from_millis(n);
        let created = registry.create_endpoint(new, "tester", at).await.unwrap();
        raw.extend((n % 2 == 0).then_some(created.id));
    }
    let tenant = tenant("t");
    let paused = registry.set_state(&tenant, raw[2], EndpointState::Paused, "x", now());
    paused.await.unwrap();
    for (state, event_type, url, format, expected) in [
        (None, None, Some("/raw/"), None, &raw[..]),
        (None, None, None, Some("raw"), &raw),
        (None, Some("reward.granted"), None, Some("raw"), &raw),
        (None, Some("referral.confirmed"), None, None, &[]),
        (Some("paused"), None, None, None, &raw[2..]),
        (Some("active"), None, None, Some("raw"), &raw[..2]),
    ] {
        let filter = EndpointFilter {
            state: state.map(|name| name.parse().unwrap()),
            event_type: event_type.map(|name| name.parse().unwrap()),
            url: url.map(str::to_owned),
            format: format.map(|name| name.parse().unwrap()),
        };
        assert_eq!(filtered(registry, &filter).await, expected, "{filter:?}");
    }
}

async fn a_tenant_sees_and_changes_only_its_own(registry: &Registry) {
    let (mine, other) = (create(registry, "t").await, tenant("u"));
    let unknown = EndpointId::from_uuid(Uuid::from_u128(1));
    for (tenant, id) in [(&other, mine.id), (&mine.tenant, unknown)] {
        assert_eq!(registry.endpoint(tenant, id).await.unwrap(), None);
        let changed = registry.set_state(tenant, id, EndpointState::Paused, "tester", now());
        assert_eq!(changed.await.unwrap(), None);
        let deleted = registry.delete_endpoint(tenant, id, "tester", now());
        assert!(!deleted.await.unwrap());
    }
    assert_eq!(registry.version().await.unwrap(), 1);
    assert_eq!(
        registry.audit(&AuditPage::latest(10)).await.unwrap().len(),
        1
    );

    let deleted = registry.delete_endpoint(&mine.tenant, mine.id, "tester", now());
    assert!(deleted.await.unwrap());
    let read = registry.endpoint(&mine.tenant, mine.id).await.unwrap();
    assert_eq!(read, None);
}

async fn a_state_is_kept_until_the_next(registry: &Registry) {
    let endpoint = create(registry, "t").await;
    let later = now() + Duration::from_secs(60);
    let disabled = EndpointState::Disabled {
        reason: DisabledReason::Gone,
        since: now(),
    };
    let states = [EndpointState::Paused, disabled, EndpointState::Active];
    for (state, micros) in states.into_iter().zip(0..) {
        let changed = registry
            .set_state(
                &endpoint.tenant,
                endpoint.id,
                state.clone(),
                "tester",
                later,
            )
            .await
            .unwrap()
            .unwrap();
        let expected = Endpoint {
            state,
            // The same time is told apart, so that no change is taken for another.
            updated_at: endpoint.updated_at
                + Duration::from_secs(60)
                + Duration::from_micros(micros),
            ..endpoint.clone()
        };
        assert_eq!(changed, expected);
        let read = registry
            .endpoint(&endpoint.tenant, endpoint.id)
            .await
            .unwrap();
        assert_eq!(read, Some(expected));
    }
}

async fn every_change_of_an_endpoint_is_a_new_version(registry: &Registry) {
    assert_eq!(registry.version().await.unwrap(), 0);
    let Endpoint { tenant, id, .. } = create(registry, "t").await;
    assert_eq!(registry.version().await.unwrap(), 1);
    let changed = registry.set_state(&tenant, id, EndpointState::Paused, "tester", now());
    changed.await.unwrap();
    assert_eq!(registry.version().await.unwrap(), 2);
    let deleted = registry.delete_endpoint(&tenant, id, "tester", now());
    deleted.await.unwrap();
    assert_eq!(registry.version().await.unwrap(), 3);
    let key = registry.create_api_key("ci", "tester", now());
    key.await.unwrap();
    assert_eq!(registry.version().await.unwrap(), 3);
}

async fn a_load_holds_every_endpoint_at_its_version(registry: &Registry) {
    let empty = registry.load(None).await.unwrap();
    assert_eq!((empty.version(), empty.len()), (0, 0));
    let (one, other) = (create(registry, "t").await, create(registry, "u").await);
    let snapshot = registry.load(None).await.unwrap();
    assert_eq!((snapshot.version(), snapshot.len()), (2, 2));
    for endpoint in [&one, &other] {
        assert_eq!(&**snapshot.endpoint(endpoint.id).unwrap(), endpoint);
    }
}

async fn a_load_takes_from_the_last_one_what_has_not_changed(registry: &Registry) {
    let [kept, changed, deleted] = [
        create(registry, "t").await,
        create(registry, "t").await,
        create(registry, "u").await,
    ];
    let before = Arc::new(registry.load(None).await.unwrap());
    // At the time of the registration, as far as the clock shows.
    let (paused, at) = (EndpointState::Paused, changed.updated_at);
    let pausing = registry.set_state(&changed.tenant, changed.id, paused, "tester", at);
    pausing.await.unwrap();
    let deleting = registry.delete_endpoint(&deleted.tenant, deleted.id, "tester", now());
    deleting.await.unwrap();

    let after = registry.load(Some(Arc::clone(&before))).await.unwrap();
    assert_eq!(after.len(), 2);
    let of = |snapshot: &Snapshot, endpoint: &Endpoint| {
        let endpoint = snapshot.endpoint(endpoint.id).unwrap();
        (Arc::as_ptr(endpoint), endpoint.state.clone())
    };
    assert_eq!(of(&after, &kept), of(&before, &kept));
    assert_ne!(of(&after, &changed).0, of(&before, &changed).0);
    assert_eq!(of(&after, &changed).1, EndpointState::Paused);
    let named = registry
        .endpoint(&changed.tenant, changed.id)
        .await
        .unwrap();
    assert_eq!(**after.endpoint(changed.id).unwrap(), named.unwrap());
}

async fn every_change_leaves_an_audit_entry(registry: &Registry) {
    let endpoint = create(registry, "t").await;
    let Endpoint { tenant, id, .. } = &endpoint;
    let changed = registry.set_state(tenant, *id, EndpointState::Paused, "anna", now());
    changed.await.unwrap();
    let deleted = registry.delete_endpoint(tenant, *id, "ben", now());
    deleted.await.unwrap();
    let key = registry.create_api_key("ci", "cara", now()).await.unwrap();

    let (subject, key_subject) = (id.to_string(), key.id.to_string());
    let entries = registry.audit(&AuditPage::latest(10)).await.unwrap();
    let told: Vec<_> = entries
        .iter()
        .map(|entry| (&*entry.actor, &*entry.action, &*entry.subject))
        .collect();
    assert_eq!(
        told,
        [
            ("cara", "api_key.create", &*key_subject),
            ("ben", "endpoint.delete", &*subject),
            ("anna", "endpoint.set_state", &*subject),
            ("tester", "endpoint.create", &*subject),
        ]
    );
    assert_eq!(entries[0].at, endpoint.created_at);
    assert_eq!(entries[2].detail["state"]["state"], "paused");
    assert_eq!(entries[3].detail["tenant"], "t");
    assert_eq!(
        registry.audit(&AuditPage::latest(1)).await.unwrap(),
        entries[..1]
    );
}

async fn the_catalogue_of_event_types_is_kept_and_is_a_new_version(registry: &Registry) {
    let file = CatalogueFile::built_in(REFERRAL_CATALOGUE).unwrap();
    let before = registry.version().await.unwrap();
    for one in &file.event_types {
        let put = registry.put_event_type(one.clone(), "tester", now()).await;
        assert_eq!(put.unwrap().definition, *one);
    }
    assert_eq!(registry.version().await.unwrap(), before + 6);
    let names: Vec<_> = registry
        .event_types()
        .await
        .unwrap()
        .into_iter()
        .map(|known| known.definition.name.to_string())
        .collect();
    assert!(names.is_sorted() && names.len() == 6, "{names:?}");

    let mut changed = file.event_types[0].clone();
    changed.description = "Ünïcode".to_owned();
    let put = registry.put_event_type(changed.clone(), "tester", now());
    put.await.unwrap();
    let read = registry.event_type(&changed.name).await.unwrap();
    assert_eq!(read.unwrap().definition, changed);

    changed.schema = Some(serde_json::json!({"type": "numbr"}));
    let refused = registry.put_event_type(changed.clone(), "tester", now());
    let refused = refused.await.unwrap_err();
    assert!(matches!(refused, RegistryFault::InvalidEventType(_)));

    let name = &changed.name;
    for there in [true, false] {
        let deleted = registry.delete_event_type(name, "tester", now()).await;
        assert_eq!(deleted.unwrap(), there);
    }
    let (version, catalogue) = registry.catalogue().await.unwrap();
    assert_eq!(version, before + 8);
    assert!(catalogue.get(name).is_none());
}

async fn an_api_key_is_known_by_itself_alone(registry: &Registry) {
    assert!(!registry.api_keys_exist().await.unwrap());
    let made = registry
        .create_api_key("ci", "tester", now())
        .await
        .unwrap();
    assert!(registry.api_keys_exist().await.unwrap());
    assert!(made.key.expose().starts_with("ffk_"));

    let known = registry.verify_api_key(made.key.expose()).await.unwrap();
    let known = known.expect("the key was just made");
    assert_eq!((known.id, &*known.name), (made.id, "ci"));
    for unknown in ["", "ffk_", "' OR 1=1 --", &made.key.expose()[1..]] {
        assert_eq!(registry.verify_api_key(unknown).await.unwrap(), None);
    }
}

async fn changes_at_once_are_all_kept(registry: &Registry) {
    let mut creating = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let registry = registry.clone();
        creating.spawn(async move { create(&registry, "t").await });
    }
    creating.join_all().await;
    let snapshot = registry.load(None).await.unwrap();
    assert_eq!((snapshot.version(), snapshot.len()), (20, 20));
}

async fn the_audit_log_is_searched_by_what_is_given(registry: &Registry) {
    let (one, other) = (create(registry, "t").await, create(registry, "u").await);
    let later = now() + Duration::from_secs(60);
    let paused = registry.set_state(&one.tenant, one.id, EndpointState::Paused, "anna", later);
    paused.await.unwrap();
    let detail = serde_json::json!({ "tenant": "u", "why": "a test" });
    let recorded = registry.record("ben", "replay.start", "op_1", &detail, later);
    recorded.await.unwrap();

    let all = registry.audit(&AuditPage::latest(10)).await.unwrap();
    let latest = AuditPage::latest(10);
    let page = |change: fn(&mut AuditPage)| {
        let mut page = latest.clone();
        change(&mut page);
        page
    };
    for (page, expected) in [
        (page(|_| {}), &[0, 1, 2, 3][..]),
        (page(|page| page.tenant = Some(tenant("u"))), &[0, 2]),
        (page(|page| page.actor = Some("anna".to_owned())), &[1]),
        (
            page(|page| page.action = Some("endpoint".to_owned())),
            &[1, 2, 3],
        ),
        (
            page(|page| page.action = Some("endpoint.create".to_owned())),
            &[2, 3],
        ),
        (page(|page| page.action = Some("endpoint.".to_owned())), &[]),
        (
            page(|page| page.since = Some(now() + Duration::from_secs(1))),
            &[0, 1],
        ),
        (
            page(|page| page.until = Some(now() + Duration::from_secs(1))),
            &[2, 3],
        ),
        (page(|page| page.limit = 2), &[0, 1]),
    ] {
        let expected: Vec<_> = expected.iter().map(|n| all[*n].clone()).collect();
        assert_eq!(registry.audit(&page).await.unwrap(), expected, "{page:?}");
    }
    let of_other = AuditPage {
        subject: Some(other.id.to_string()),
        ..latest.clone()
    };
    assert_eq!(registry.audit(&of_other).await.unwrap(), [all[2].clone()]);
    let rest = AuditPage {
        before: Some(all[1].id),
        ..latest
    };
    assert_eq!(registry.audit(&rest).await.unwrap(), all[2..]);
    assert_eq!(all[0].detail, detail);
}

async fn a_state_is_replaced_only_as_long_as_it_is_the_one_that_was_seen(registry: &Registry) {
    let seen = create(registry, "t").await;
    let replace = async |state| {
        let (tenant, id, as_of) = (&seen.tenant, seen.id, seen.updated_at);
        registry
            .replace_state(tenant, id, as_of, state, "tester", now())
            .await
            .unwrap()
    };
    let changed = replace(EndpointState::Paused).await.unwrap();
    assert_eq!(changed.state, EndpointState::Paused);
    // Within the same microsecond, and with the same state as was seen: it was changed nevertheless.
    let set = registry.set_state(&seen.tenant, seen.id, seen.state.clone(), "tester", now());
    assert_eq!(set.await.unwrap().unwrap().state, seen.state);
    assert_eq!(replace(EndpointState::Paused).await, None);
    assert_eq!(registry.version().await.unwrap(), 3);
}

async fn of_changes_at_once_each_is_judged_by_what_is_stored(registry: &Registry) {
    let endpoint = create(registry, "t").await;
    let mut changing = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (registry, endpoint) = (registry.clone(), endpoint.clone());
        changing.spawn(async move {
            let (tenant, id) = (&endpoint.tenant, endpoint.id);
            registry
                .change_state(tenant, id, StateChange::Pause, "tester", now())
                .await
                .unwrap()
                .unwrap()
                .state
        });
    }
    let states = changing.join_all().await;
    assert_eq!(states, vec![EndpointState::Paused; 4]);
    // One of them made the change, the others found it made.
    assert_eq!(registry.version().await.unwrap(), 2);
}

async fn an_endpoint_is_replaced_only_as_long_as_it_is_the_one_that_was_seen(registry: &Registry) {
    let seen = create(registry, "t").await;
    let replace = async |change: fn(&mut NewEndpoint)| {
        let mut new = NewEndpoint::from(seen.clone());
        change(&mut new);
        let by = ("endpoint.update", "anna");
        registry.replace_endpoint(&seen, new, by, now()).await
    };
    assert_eq!(replace(|_| ()).await.unwrap(), Some(seen.clone()));
    let refused = replace(|new| new.max_in_flight = 0).await;
    assert!(matches!(refused, Err(RegistryFault::Invalid(_))));
    assert_eq!(registry.version().await.unwrap(), 1, "nothing was changed");

    let change = |new: &mut NewEndpoint| {
        new.timeout = Duration::from_secs(3);
        new.headers = vec![HeaderField::new("x-a", "hush-hush").unwrap()];
    };
    let changed = replace(change).await.unwrap().unwrap();
    let expected = Endpoint {
        timeout: Duration::from_secs(3),
        headers: vec![HeaderField::new("x-a", "hush-hush").unwrap()],
        updated_at: seen.updated_at + Duration::from_micros(1),
        ..seen.clone()
    };
    assert_eq!(changed, expected);
    let read = registry.endpoint(&seen.tenant, seen.id).await.unwrap();
    assert_eq!(read, Some(expected));
    assert_eq!(registry.version().await.unwrap(), 2);
    assert_eq!(replace(|new| new.max_in_flight = 1).await.unwrap(), None);

    let audit = registry.audit(&AuditPage::latest(1)).await.unwrap();
    let told = (&*audit[0].actor, &*audit[0].action, &audit[0].detail);
    let detail =
        serde_json::json!({"tenant": "t", "url": seen.url, "changed": ["timeout", "headers"]});
    assert_eq!(told, ("anna", "endpoint.update", &detail));
}

async fn an_update_is_judged_anew_when_the_endpoint_was_changed_meanwhile(registry: &Registry) {
    let Endpoint { tenant, id, .. } = &create(registry, "t").await;
    let mut changing = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (registry, tenant, id) = (registry.clone(), tenant.clone(), *id);
        changing.spawn(async move {
            let more = |endpoint: Endpoint| {
                let mut new = NewEndpoint::from(endpoint);
                new.max_in_flight += 1;
                Ok::<_, RegistryFault>(new)
            };
            let updated = registry.update_endpoint(&tenant, id, more, "tester", now());
            updated.await.unwrap().unwrap()
        });
    }
    changing.join_all().await;
    let read = registry.endpoint(tenant, *id).await.unwrap().unwrap();
    assert_eq!(read.max_in_flight, Endpoint::DEFAULT_MAX_IN_FLIGHT + 4);
    assert_eq!(registry.version().await.unwrap(), 5);
    let (others, same) = (self::tenant("u"), |endpoint| {
        Ok::<_, RegistryFault>(NewEndpoint::from(endpoint))
    });
    let nobody = registry.update_endpoint(&others, *id, same, "tester", now());
    assert_eq!(nobody.await.unwrap(), None);
}

async fn a_rotated_secret_is_kept_beside_the_one_before(registry: &Registry) {
    let endpoint = create(registry, "t").await;
    let rotation = Rotation::default();
    let rotated = registry.rotate_secret(&endpoint.tenant, endpoint.id, &rotation, "anna", now());
    let rotated = rotated.await.unwrap().unwrap();
    assert_ne!(rotated.secrets, endpoint.secrets);
    let until = endpoint.updated_at + Rotation::DEFAULT_OVERLAP;
    let secret = endpoint.secrets[0].clone();
    assert_eq!(rotated.retiring, [RetiringSecret { secret, until }]);
    let read = registry.endpoint(&endpoint.tenant, endpoint.id).await;
    assert_eq!(read.unwrap(), Some(rotated));

    let audit = registry.audit(&AuditPage::latest(1)).await.unwrap();
    assert_eq!(audit[0].action, "endpoint.rotate_secret");
    assert_eq!(audit[0].detail["changed"], serde_json::json!(["secret"]));
}

/// What a release with another schema finds, on each kind of database.
async fn check_schema(database: DatabaseLocation, execute: impl AsyncFn(&str), table: &str) {
    let settings = Settings {
        database,
        encryption_key: Some(Secret::new("a".repeat(64))),
        ..Settings::default()
    };
    let applied = async || {
        let steps = migrations(&settings).await.unwrap();
        assert!(!steps.is_empty());
        steps.iter().filter(|step| step.applied).count()
    };
    assert_eq!(applied().await, 0);
    let mut migrating = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let settings = settings.clone();
        migrating.spawn(async move { migrate(&settings).await.unwrap() });
    }
    migrating.join_all().await;
    assert_eq!(applied().await, migrations(&settings).await.unwrap().len());
    assert_eq!(migrate(&settings).await.unwrap(), []);
    Registry::open(&settings).await.unwrap().close().await;

    execute(&format!(
        "INSERT INTO {table} (version, description, success, checksum, execution_time)
         VALUES (9001, 'later', TRUE, '', 0)"
    ))
    .await;
    for fault in [
        Registry::open(&settings).await.err().unwrap(),
        migrate(&settings).await.unwrap_err(),
        migrations(&settings).await.unwrap_err(),
    ] {
        let newer = matches!(fault, RegistryFault::NewerSchema { found: 9001, .. });
        assert!(newer && !fault.is_transient(), "{fault:?}");
        assert!(fault.to_string().contains("newer release"), "{fault}");
    }
    execute(&format!("DELETE FROM {table} WHERE version = 9001")).await;
    execute(&format!("UPDATE {table} SET checksum = ''")).await;
    let fault = Registry::open(&settings).await.err().unwrap();
    let damaged = matches!(fault, RegistryFault::Damaged { .. });
    assert!(damaged && !fault.is_transient(), "{fault:?}");
}

#[tokio::test]
async fn a_schema_is_brought_up_to_date_once_and_a_newer_one_refused_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fanfare.db");
    let execute = async |statement: &str| {
        let options = SqliteConnectOptions::new().filename(&path);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    };
    check_schema(path.clone().into(), execute, "_sqlx_migrations").await;
}

#[tokio::test]
async fn a_schema_is_brought_up_to_date_once_and_a_newer_one_refused_on_postgres() {
    let database = TestDatabase::new();
    let execute = async |statement: &str| drop(database.execute(statement));
    check_schema(database.location(), execute, "registry_migrations").await;
}
