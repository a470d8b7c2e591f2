//! The view `experiment_events` on the real engine: unchanged queries that people write for PostgreSQL, over
//! a few events that can be counted by hand.

mod server;

use schemas::clickhouse::MIGRATIONS;
use server::Server;

/// The events in the order of their arrival: among them a conversion before its exposure, a unit exposed to
/// both variants, a repeated exposure, a conversion of a unit that was never exposed, and one that names
/// another experiment.
const EXPOSURES: &[(&str, &str, &str, &str, &str)] = &[
    // experiment, variant, unit, attributes, minute after noon
    ("checkout", "control", "ann", "US free mobile", "01"),
    ("checkout", "treatment", "bob", "US pro desktop", "02"),
    ("checkout", "control", "cid", "EU free desktop", "03"),
    ("checkout", "treatment", "dot", "EU pro mobile", "04"),
    ("checkout", "treatment", "ann", "US free mobile", "05"),
    ("checkout", "control", "cid", "EU free desktop", "06"),
    ("pricing", "a", "bob", "US pro desktop", "07"),
];
const CONVERSIONS: &[(&str, &str, &str, &str)] = &[
    // name, unit, experiment, minute after noon
    ("signup", "ann", "", "10"),
    ("signup", "bob", "", "11"),
    ("signup", "bob", "", "12"),
    ("signup", "dot", "", "03"),
    ("signup", "eve", "", "13"),
    ("signup", "cid", "pricing", "14"),
];

fn server_with_events() -> Server {
    let server = Server::start(&[]);
    for migration in &MIGRATIONS {
        for statement in migration.statements() {
            server.sql(statement);
        }
    }
    for (number, (experiment, variant, unit, attributes, minute)) in EXPOSURES.iter().enumerate() {
        let [region, plan, device] = attributes.split(' ').collect::<Vec<_>>()[..] else { panic!("three") };
        server.sql(&format!(
            "INSERT INTO exposures (event_id, experiment, variant, unit_type, unit_id, region, plan, device, \
             environment, created_at, kafka_offset) VALUES (generateUUIDv4(), '{experiment}', '{variant}', 'user', '{unit}', \
             '{region}', '{plan}', '{device}', 'production', '2026-01-31 12:{minute}:00', {number})"
        ));
    }
    for (number, (name, unit, experiment, minute)) in CONVERSIONS.iter().enumerate() {
        server.sql(&format!(
            "INSERT INTO conversions (event_id, name, unit_type, unit_id, experiment, value, environment, created_at, \
             kafka_offset) VALUES (generateUUIDv4(), '{name}', 'user', '{unit}', '{experiment}', 9.99, \
             'production', '2026-01-31 12:{minute}:00', {number})"
        ));
    }
    server
}

#[test]
fn exposures_conversions_and_the_rate_of_each_variant() {
    let server = server_with_events();
    let sql = "
        SELECT
            variant,
            COUNT(DISTINCT user_id) FILTER (WHERE event_type = 'exposure') AS exposures,
            COUNT(DISTINCT user_id) FILTER (WHERE event_type = 'conversion' AND event_name = 'signup') AS conversions,
            COUNT(DISTINCT user_id) FILTER (WHERE event_type = 'conversion' AND event_name = 'signup')::FLOAT
                / NULLIF(COUNT(DISTINCT user_id) FILTER (WHERE event_type = 'exposure'), 0) AS conversion_rate
        FROM experiment_events
        WHERE experiment_id = 'checkout'
          AND created_at >= '2026-01-31 12:00:00'
          AND created_at < '2026-02-01'
        GROUP BY variant
        ORDER BY variant;";
    // Ann converted, in her first variant. Dot converted before her exposure, which does not count.
    assert_eq!(server.sql(sql), "control\t2\t1\t0.5\ntreatment\t3\t1\t0.3333333333333333\n");
    let windows = "
        SELECT DATE_TRUNC('day', created_at) AS day, variant, COUNT(*) AS events, AVG(event_value) AS value
        FROM experiment_events
        WHERE experiment_id = 'checkout' AND event_type = 'conversion'
          AND created_at BETWEEN '2026-01-31' AND '2026-02-01'
        GROUP BY day, variant
        ORDER BY day, variant";
    assert_eq!(
        server.sql(windows),
        "2026-01-31 00:00:00\tcontrol\t1\t9.99\n2026-01-31 00:00:00\ttreatment\t2\t9.99\n"
    );
    let recent = "SELECT COUNT(*) FROM experiment_events WHERE created_at >= NOW() - INTERVAL '7 days'";
    assert_eq!(server.sql(recent), "0\n");
    assert_eq!(server.sql(&recent.replace("'7 days'", "7 DAY")), "0\n");
}

#[test]
fn the_balance_of_regions_plans_and_devices_by_variant() {
    let server = server_with_events();
    let sql = "
        SELECT
            variant,
            COUNT(DISTINCT user_id) AS users,
            AVG(CASE WHEN region = 'US' THEN 1 ELSE 0 END) AS pct_us,
            AVG(CASE WHEN plan = 'pro' THEN 1.0 ELSE 0 END) AS pct_pro,
            AVG(CASE WHEN device = 'mobile' THEN 1 ELSE 0 END) AS pct_mobile
        FROM experiment_events
        WHERE experiment_id = 'checkout' AND event_type = 'exposure'
        GROUP BY variant
        ORDER BY variant";
    let third = "0.3333333333333333";
    let two_thirds = "0.6666666666666666";
    assert_eq!(
        server.sql(sql),
        format!("control\t2\t{third}\t0\t{third}\ntreatment\t3\t{two_thirds}\t{two_thirds}\t{two_thirds}\n")
    );
}

#[test]
fn a_conversion_appears_once_for_each_experiment_that_exposed_its_unit_before() {
    let server = server_with_events();
    let sql = "SELECT experiment_id, variant, user_id, event_name, region, created_at FROM experiment_events \
               WHERE event_type = 'conversion' ORDER BY experiment_id, created_at FORMAT CSV";
    assert_eq!(
        server.sql(sql),
        "\"checkout\",\"control\",\"ann\",\"signup\",\"US\",\"2026-01-31 12:10:00.000000\"\n\
         \"checkout\",\"treatment\",\"bob\",\"signup\",\"US\",\"2026-01-31 12:11:00.000000\"\n\
         \"checkout\",\"treatment\",\"bob\",\"signup\",\"US\",\"2026-01-31 12:12:00.000000\"\n\
         \"pricing\",\"a\",\"bob\",\"signup\",\"US\",\"2026-01-31 12:11:00.000000\"\n\
         \"pricing\",\"a\",\"bob\",\"signup\",\"US\",\"2026-01-31 12:12:00.000000\"\n"
    );
    // A unit that an event names twice, as itself and among its other ids, converts once.
    server.sql(
        "INSERT INTO conversions (event_id, name, unit_type, unit_id, other_ids, environment, created_at) VALUES \
         (generateUUIDv4(), 'twice', 'user', 'bob', map('user', 'bob', 'device', 'd1'), 'production', '2026-01-31 13:00:00')",
    );
    let twice = "SELECT experiment_id, count() FROM experiment_events WHERE event_name = 'twice' GROUP BY 1 ORDER BY 1";
    assert_eq!(server.sql(twice), "checkout\t1\npricing\t1\n");
}

/// The view contains only the environments that an experiment counts, and no unit that was ever forced or
/// held out.
#[test]
fn the_view_omits_what_an_experiment_does_not_count() {
    let server = server_with_events();
    server.sql(
        "INSERT INTO definition_log (version, kind, key, definition, accepted) VALUES (1, 'experiment', 'beta', \
         '{\"counted_environments\": [\"staging\", \"canary\"]}', true)",
    );
    for (experiment, unit, environment, reason) in [
        ("beta", "u1", "staging", "split"),
        ("beta", "u2", "production", "split"),
        ("beta", "u3", "canary", "split"),
        ("alpha", "u1", "production", "split"),
        ("alpha", "u2", "staging", "split"),
        ("alpha", "u4", "production", "split"),
        ("alpha", "u4", "production", "forced"),
        ("alpha", "u5", "production", "held_out"),
    ] {
        server.sql(&format!(
            "INSERT INTO exposures (event_id, experiment, variant, unit_type, unit_id, environment, reason, created_at) \
             VALUES (generateUUIDv4(), '{experiment}', 'a', 'user', '{unit}', '{environment}', '{reason}', \
             '2026-01-31 12:00:00')"
        ));
    }
    for (unit, environment) in [
        ("u1", "production"),
        ("u1", "staging"),
        ("u3", "canary"),
        ("u4", "production"),
        ("u5", "production"),
    ] {
        server.sql(&format!(
            "INSERT INTO conversions (event_id, name, unit_type, unit_id, environment, created_at) VALUES \
             (generateUUIDv4(), 'buy', 'user', '{unit}', '{environment}', '2026-01-31 13:00:00')"
        ));
    }
    let seen = "SELECT experiment_id, user_id, event_type, count() FROM experiment_events WHERE experiment_id IN \
                ('alpha', 'beta') GROUP BY ALL ORDER BY ALL";
    assert_eq!(
        server.sql(seen),
        "alpha\tu1\tconversion\t1\nalpha\tu1\texposure\t1\nbeta\tu1\tconversion\t1\nbeta\tu1\texposure\t1\n\
         beta\tu3\tconversion\t1\nbeta\tu3\texposure\t1\n"
    );
}

/// Of a switchback a conversion appears in the window of its time, if it carries the cluster and the burn-in is over.
#[test]
fn a_conversion_appears_in_the_window_of_a_switchback_that_its_time_is_in() {
    let server = server_with_events();
    for (version, key, window, burn_in) in [(1, "surge", 3_600, 600), (2, "slow", 7_200, 0)] {
        server.sql(&format!(
            "INSERT INTO definition_log (version, kind, key, definition, accepted) VALUES ({version}, 'experiment', '{key}', \
             '{{\"switchback\": {{\"window_seconds\": {window}, \"burn_in_seconds\": {burn_in}}}}}', true)"
        ));
    }
    // 2026-01-31T12:00:00Z is the second 1769860800 since 1970. The first window of `surge` begins with one of `slow`.
    for (experiment, variant, start, at) in [
        ("surge", "a", 1_769_860_800, "12:00:00"),
        ("surge", "b", 1_769_864_400, "13:00:01"),
        ("slow", "b", 1_769_860_800, "12:00:00"),
    ] {
        server.sql(&format!(
            "INSERT INTO exposures (event_id, experiment, variant, unit_type, unit_id, other_ids, environment, created_at) \
             VALUES (generateUUIDv4(), '{experiment}', '{variant}', 'region', concat('eu', char(0), '{start}'), \
             map('region', 'eu', 'user', 'ann'), 'production', '2026-01-31 {at}')"
        ));
    }
    for (name, carries, at) in [
        ("in_burn_in", "'region', 'eu'", "12:09:59.999999"),
        ("counts", "'region', 'eu'", "12:10:00"),
        ("last", "'region', 'eu'", "12:59:59.999999"),
        ("next_burn_in", "'region', 'eu'", "13:00:30"),
        ("next", "'region', 'eu'", "13:10:00"),
        ("not_exposed", "'region', 'eu'", "14:30:00"),
        ("elsewhere", "'region', 'us'", "12:30:00"),
    ] {
        server.sql(&format!(
            "INSERT INTO conversions (event_id, name, unit_type, unit_id, other_ids, environment, created_at) VALUES \
             (generateUUIDv4(), '{name}', 'user', 'somebody', map({carries}), 'production', '2026-01-31 {at}')"
        ));
    }
    let seen = |experiment: &str| {
        server.sql(&format!(
            "SELECT event_name, variant, replaceAll(user_id, char(0), '@') FROM experiment_events \
             WHERE experiment_id = '{experiment}' AND event_type = 'conversion' ORDER BY created_at"
        ))
    };
    let (first, second) = ("eu@1769860800", "eu@1769864400");
    assert_eq!(seen("surge"), format!("counts\ta\t{first}\nlast\ta\t{first}\nnext\tb\t{second}\n"));
    let of_slow = ["in_burn_in", "counts", "last", "next_burn_in", "next"];
    assert_eq!(seen("slow"), of_slow.map(|name| format!("{name}\tb\t{first}\n")).concat());
    // The zero byte survives in JSON.
    let json =
        "SELECT DISTINCT user_id FROM experiment_events WHERE experiment_id = 'slow' FORMAT JSONEachRow";
    assert_eq!(server.sql(json), "{\"user_id\":\"eu\\u00001769860800\"}\n");
    // Nothing else has changed for experiments without windows.
    let plain = "SELECT count() FROM experiment_events WHERE experiment_id IN ('checkout', 'pricing') AND event_type = 'conversion'";
    assert_eq!(server.sql(plain), "5\n");
}
