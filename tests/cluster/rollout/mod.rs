//! GatewayRollouts on a real API server: what their definition takes and refuses, who may approve, whose hands are kept off.

mod approvals;
mod crd;

use libtest_mimic::Trial;

use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(ApiServer, crd::the_definition_refuses_what_cannot_be_carried_out),
        trial!(Helm, approvals::only_who_may_approves_and_nobody_in_anothers_name),
    ]
}
