//! Settings of a client's own, as `app.user`: who has not set one does not find it.

use crate::relay::narrow;
use crate::stage::Stage;
use crate::support::gateway::{BEN, Setup};
use crate::support::wire::Wire;

const OPENED: &str = "tollgate_backend_connections_total{backend=\"warehouse\",outcome=\"connected\"}";

fn finds_nothing(wire: &mut Wire) {
    for sql in ["SHOW app.tenant", "SELECT current_setting('app.tenant')"] {
        assert_eq!(wire.query(sql).sqlstate(), "42704", "{sql}");
    }
    assert_eq!(
        wire.query("SELECT current_setting('app.tenant', true)").rows(),
        [[None]]
    );
}

#[test]
fn a_setting_of_ones_own_exists_for_nobody_else() {
    for set in [
        &["SET app.tenant = 'one'"][..],
        &["SET app.tenant = 'one'", "RESET app.tenant"],
        &["SET app.tenant = 'one'", "RESET ALL"],
        &["SET app.tenant = 'one'", "DISCARD ALL"],
        &["SELECT set_config('app.tenant', 'one', false)"],
        &["BEGIN", "SET LOCAL app.tenant = 'one'", "COMMIT"],
        &["BEGIN", "SELECT set_config('app.tenant', 'one', true)", "COMMIT"],
        &["BEGIN", "SET app.tenant = 'one'", "ROLLBACK"],
        &["BEGIN; SET LOCAL app.tenant = 'one'; SELECT 1; COMMIT"],
    ] {
        let stage = Stage::with("", &narrow());
        let (mut direct, mut ana, mut ben) = (stage.direct(), stage.ana(), stage.gateway.session(BEN));
        for sql in set {
            direct.run(sql);
            ana.run(sql);
        }
        for _ in 0..2 {
            finds_nothing(&mut ben);
            // nor does it get lost, though its value may be
            for sql in ["SHOW app.tenant", "SELECT current_setting('app.tenant')"] {
                assert_eq!(ana.query(sql).value(), direct.query(sql).value(), "{set:?}");
            }
        }
    }
}

#[test]
fn a_setting_whose_name_is_not_known_goes_with_its_connection() {
    let stage = Stage::with("", &narrow());
    let mut ana = stage.ana();
    ana.extended("SELECT set_config($1, 'one', true)", &[Some(b"app.tenant")], &[]);
    drop(ana);
    finds_nothing(&mut stage.gateway.session(BEN));
}

#[test]
fn sessions_that_set_the_same_name_share_their_connections() {
    let stage = Stage::with("", &Setup::new().connections(2));
    let work = |prelude: bool| {
        let mut wire = stage.ana();
        if prelude {
            wire.run("SELECT 1");
        }
        for user in ["one", "two"] {
            wire.run("BEGIN");
            wire.run(&format!("SELECT set_config('app.user', '{user}', true)"));
            assert_eq!(wire.value("SELECT current_setting('app.user')"), user);
            wire.run("COMMIT");
            assert_eq!(wire.value("SELECT current_setting('app.user', true)"), "");
        }
    };
    work(true);
    work(false);
    let before = stage.gateway.metric(OPENED);
    for round in 0..10 {
        work(round % 2 == 0);
    }
    let opened = stage.gateway.metric(OPENED) - before;
    // one at most for each session that began with a query
    assert!(opened <= 5, "{opened} connections were opened");
}

#[test]
fn a_session_with_very_many_settings_of_its_own_keeps_its_connection() {
    // fewer than a connection is remembered by, and more
    for count in [150, 1_200] {
        let stage = Stage::with("", &Setup::new().connections(2));
        let mut wire = stage.ana();
        wire.run("SELECT 1");
        let before = stage.gateway.metric(OPENED);
        for number in 0..count {
            wire.run(&format!("SET app.tenant{number} = '{number}'"));
        }
        for number in [0, count / 2, count - 1] {
            assert_eq!(
                wire.value(&format!("SHOW app.tenant{number}")),
                number.to_string()
            );
        }
        assert!(
            stage.gateway.metric(OPENED) - before <= 1,
            "one connection is enough"
        );
        let last = format!("app.tenant{}", count - 1);
        wire.run("DISCARD ALL");
        assert_eq!(wire.value(&format!("SHOW {last}")), "");
        wire.run(&format!("SET {last} = 'again'"));
        assert_eq!(wire.value(&format!("SHOW {last}")), "again");
        let mut ben = stage.gateway.session(BEN);
        assert_eq!(ben.query(&format!("SHOW {last}")).sqlstate(), "42704");
        drop(wire);
        for _ in 0..2 {
            assert_eq!(ben.query(&format!("SHOW {last}")).sqlstate(), "42704");
        }
    }
}
