//! Policy events and Cloud App Security's detections as OCSF's Detection Finding.

use super::email_activity::FILE;
use crate::format::table::Fill::{FirstList, Fixed, From, List, Ours};
use crate::format::table::{Convert, Literal, Ours as Known, Pick, Row, Texts};

/// The class: a finding was made.
pub const CLASS: &[Row] = &[
    Row("category_uid", Fixed(Literal::Number(2))),
    Row("category_name", Fixed(Literal::Text("Findings"))),
    Row("class_uid", Fixed(Literal::Number(2004))),
    Row("class_name", Fixed(Literal::Text("Detection Finding"))),
    Row("activity_id", Fixed(Literal::Number(1))),
    Row("activity_name", Fixed(Literal::Text("Create"))),
    Row("type_uid", Fixed(Literal::Number(200_401))),
    Row("type_name", Fixed(Literal::Text("Detection Finding: Create"))),
    Row("is_alert", Fixed(Literal::Flag(true))),
    Row("finding_info.uid", Ours(Known::EventId)),
];

/// What a policy found in a mail.
pub const POLICY_EVENT: &[Row] = &[
    Row("severity_id", From(&["details.riskLevel"], Convert::Classify(RISK_LEVEL, UNKNOWN))),
    Row("metadata.product.name", Fixed(Literal::Text("Email Security"))),
    Row("metadata.original_time", From(&["timestamp"], Convert::Text)),
    Row("metadata.logged_time", From(&["genTime"], Convert::Millis)),
    Row("finding_info.title", From(&["eventType"], Convert::Text)),
    Row("finding_info.types", List(&[Texts("eventSubtype", "", Pick::Text)])),
    Row("policy.name", From(&["policyName"], Convert::Text)),
    Row("status_code", From(&["policyAction"], Convert::Text)),
    Row("action_id", From(&["policyAction"], Convert::ClassifyStart(ACTION, UNKNOWN))),
    Row("disposition_id", From(&["policyAction"], Convert::ClassifyStart(DISPOSITION, UNKNOWN))),
    Row("malware[].name", From(&["details.threatNames"], Convert::Text)),
    Row("malware[].classification_ids", Fixed(Literal::Numbers(&[0]))),
    Row("evidences[].email.message_uid", From(&["messageID"], Convert::MessageId)),
    Row("evidences[].email.subject", From(&["subject"], Convert::Text)),
    Row("evidences[].email.size", From(&["size"], Convert::Long)),
    Row("evidences[].email.return_path", From(&["sender"], Convert::Email)),
    Row("evidences[].email.from", From(&["headerFrom", "sender"], Convert::Email)),
    Row(
        "evidences[].email.to",
        FirstList(&[Texts("headerTo", "", Pick::Email), Texts("recipients", "", Pick::Email)]),
    ),
    Row("evidences[].email.delivered_to_list", List(&[Texts("recipients", "", Pick::Email)])),
    Row("evidences[].email.files", From(&["attachments"], Convert::Each(FILE))),
    Row("evidences[].src_endpoint.ip", From(&["senderIP"], Convert::Ip)),
];

/// What is said of detections in mails.
pub const IN_MAIL: &[Row] = &[
    Row("evidences[].email.message_uid", From(&["message.mail_message_id"], Convert::MessageId)),
    Row("evidences[].email.subject", From(&["message.mail_message_subject"], Convert::Text)),
    Row(
        "evidences[].email.from_list",
        List(&[Texts("message.mail_message_sender", "", Pick::Email)]),
    ),
    Row("evidences[].email.from", From(&["message.mail_message_sender"], Convert::Email)),
    Row("evidences[].email.to", List(&[Texts("message.mail_message_recipient", "", Pick::Email)])),
    Row("evidences[].email.files[].name", From(&["message.mail_message_file_name"], Convert::Text)),
    Row("evidences[].email.files[].type_id", Fixed(Literal::Number(1))),
];

/// What is said of detections elsewhere.
pub const IN_FILE: &[Row] = &[
    Row("evidences[].file.name", From(&["message.file_name"], Convert::Text)),
    Row("evidences[].file.type_id", Fixed(Literal::Number(1))),
];

/// What is said of every detection.
pub const DETECTION: &[Row] = &[
    Row("severity_id", From(&["message.risk_level"], Convert::Classify(RISK_LEVEL, UNKNOWN))),
    Row("risk_level", From(&["message.risk_level"], Convert::Text)),
    Row("metadata.product.name", Fixed(Literal::Text("Cloud App Security"))),
    Row("metadata.product.feature.name", Ours(Known::Member("service"))),
    Row("metadata.original_time", From(&["message.detection_time"], Convert::Text)),
    Row("metadata.original_event_uid", From(&["log_item_id"], Convert::Text)),
    Row("metadata.event_code", From(&["event"], Convert::Text)),
    Row("metadata.log_source", From(&["service"], Convert::Text)),
    Row("finding_info.title", From(NAMES, Convert::Text)),
    Row("finding_info.types", List(&[Texts("message.triggered_security_filter", "", Pick::Text)])),
    Row("policy.name", From(&["message.triggered_policy_name"], Convert::Text)),
    Row("status_code", From(&["message.action"], Convert::Text)),
    Row("status_detail", From(&["message.action_result"], Convert::Text)),
    Row("action_id", From(&["message.action"], Convert::ClassifyStart(ACTION, UNKNOWN))),
    Row("disposition_id", From(&["message.action"], Convert::ClassifyStart(DISPOSITION, UNKNOWN))),
    Row("malware[].name", From(&["message.virus_name", "message.ransomware_name"], Convert::Text)),
    Row("malware[].classification_ids", Fixed(Literal::Numbers(&[0]))),
    Row("evidences[].user.name", From(&["message.affected_user"], Convert::Text)),
    Row("unmapped.requested.service", Ours(Known::Member("service"))),
    Row("unmapped.requested.event_type", Ours(Known::Member("event_type"))),
];

/// What gives a finding its title.
const NAMES: &[&str] =
    &["message.security_risk_name", "message.virus_name", "message.ransomware_name"];

const UNKNOWN: Literal = Literal::Number(0);

/// The vendor's words for a risk, as `severity_id`.
const RISK_LEVEL: &[(&str, Literal)] = &[
    ("1", Literal::Number(2)),
    ("2", Literal::Number(3)),
    ("3", Literal::Number(4)),
    ("Low", Literal::Number(2)),
    ("Medium", Literal::Number(3)),
    ("High", Literal::Number(4)),
    ("Dangerous", Literal::Number(4)),
];

/// What was done, as `action_id`.
const ACTION: &[(&str, Literal)] = &[
    ("Bypass", Literal::Number(1)),
    ("Deliver", Literal::Number(1)),
    ("Pass", Literal::Number(1)),
    ("Delete", Literal::Number(2)),
    ("Quarantine", Literal::Number(2)),
    ("Change recipient", Literal::Number(4)),
    ("Clean", Literal::Number(4)),
    ("Insert X-Header", Literal::Number(4)),
    ("Label", Literal::Number(4)),
    ("Replace", Literal::Number(4)),
    ("Sanitize", Literal::Number(4)),
    ("Tag", Literal::Number(4)),
    ("BCC", Literal::Number(3)),
];

/// The same, as `disposition_id`.
const DISPOSITION: &[(&str, Literal)] = &[
    ("Bypass", Literal::Number(1)),
    ("Deliver", Literal::Number(1)),
    ("Pass", Literal::Number(1)),
    ("Delete", Literal::Number(5)),
    ("Quarantine", Literal::Number(3)),
    ("Change recipient", Literal::Number(7)),
    ("Clean", Literal::Number(11)),
    ("Insert X-Header", Literal::Number(18)),
    ("Label", Literal::Number(18)),
    ("Replace", Literal::Number(11)),
    ("Sanitize", Literal::Number(11)),
    ("Tag", Literal::Number(18)),
    ("BCC", Literal::Number(17)),
];
