//! The other half of the codec: answers.

use serde::Serialize;

use super::review::API_VERSION;

/// The answer, ready to be written.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    pub uid: String,
    pub allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    pub audit_annotations: Vec<(&'static str, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_type: Option<&'static str>,
}

#[derive(Serialize)]
pub struct Status {
    pub status: &'static str,
    pub message: String,
    pub reason: &'static str,
    pub code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

#[derive(Serialize)]
pub struct Details {
    pub causes: Vec<Cause>,
}

#[derive(Serialize)]
pub struct Cause {
    /// The rule's code.
    pub reason: &'static str,
    pub message: String,
    pub field: String,
}

fn as_map<S: serde::Serializer>(pairs: &[(&'static str, String)], s: S) -> Result<S::Ok, S::Error> {
    s.collect_map(pairs.iter().map(|(k, v)| (k, v)))
}

/// The bytes of an answer.
pub fn write(response: &Response) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        api_version: &'static str,
        kind: &'static str,
        response: &'a Response,
    }
    let answer = Answer { api_version: API_VERSION, kind: "AdmissionReview", response };
    serde_json::to_vec(&answer).expect("strings and numbers always serialise")
}

/// A denial of an object that cannot be read.
pub fn unprocessable(uid: String, message: String) -> Response {
    let status = Status { status: "Failure", message, reason: "Invalid", code: 422, details: None };
    Response { uid, allowed: false, status: Some(status), ..Response::default() }
}
