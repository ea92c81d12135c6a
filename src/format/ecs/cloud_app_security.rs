//! Cloud App Security's detections in ECS.

use crate::format::table::Fill::{Fixed, From, List, Ours, Related, Rest, Time};
use crate::format::table::{Convert, Literal, Ours as Known, Pick, Row, Texts};

/// The categories of detections in mails.
pub const IN_MAIL: &[Row] = &[Row("event.category", Fixed(Literal::Texts(&["email"])))];
/// The same, of malware.
pub const MALWARE_IN_MAIL: &[Row] =
    &[Row("event.category", Fixed(Literal::Texts(&["email", "malware"])))];
/// The categories of detections elsewhere.
pub const IN_FILE: &[Row] = &[Row("event.category", Fixed(Literal::Texts(&["file"])))];
/// The same, of malware.
pub const MALWARE_IN_FILE: &[Row] =
    &[Row("event.category", Fixed(Literal::Texts(&["file", "malware"])))];

/// What is said of detections in mails.
pub const MAIL: &[Row] = &[
    Row("email.attachments[].file.name", From(&["message.mail_message_file_name"], Convert::Text)),
    Row("email.attachments[].file.hash.sha1", From(&["message.file_sha1"], Convert::Text)),
    Row("email.attachments[].file.hash.sha256", From(&["message.file_sha256"], Convert::Text)),
];

/// What is said of detections elsewhere.
pub const FILE: &[Row] = &[
    Row("file.name", From(&["message.file_name"], Convert::Text)),
    Row("file.hash.sha1", From(&["message.file_sha1"], Convert::Text)),
    Row("file.hash.sha256", From(&["message.file_sha256"], Convert::Text)),
];

/// What is said of every detection.
pub const DETECTION: &[Row] = &[
    Row("event.kind", Fixed(Literal::Text("alert"))),
    Row("event.type", Fixed(Literal::Texts(&["info"]))),
    Row("event.action", From(&["message.action"], Convert::Text)),
    Row("event.code", From(&["event"], Convert::Text)),
    Row(
        "event.outcome",
        From(
            &["message.action_result"],
            Convert::Classify(
                &[
                    ("success", Literal::Text("success")),
                    ("failure", Literal::Text("failure")),
                    ("failed", Literal::Text("failure")),
                    ("fail", Literal::Text("failure")),
                ],
                Literal::Text("unknown"),
            ),
        ),
    ),
    Row("@timestamp", Time("message.detection_time")),
    Row("email.delivery_timestamp", From(&["message.mail_message_delivery_time"], Convert::Date)),
    Row("email.from.address", List(&[Texts("message.mail_message_sender", "", Pick::Address)])),
    Row("email.message_id", From(&["message.mail_message_id"], Convert::MessageId)),
    Row("email.origination_timestamp", From(&["message.mail_message_submit_time"], Convert::Date)),
    Row("email.subject", From(&["message.mail_message_subject"], Convert::Text)),
    Row("email.to.address", List(&[Texts("message.mail_message_recipient", "", Pick::Address)])),
    Row("cloud.service.name", From(&["service"], Convert::Text)),
    Row("rule.name", From(&["message.triggered_policy_name"], Convert::Text)),
    Row("rule.category", From(&["message.triggered_security_filter"], Convert::Text)),
    Row(
        "threat.indicator.name",
        From(
            &["message.security_risk_name", "message.virus_name", "message.ransomware_name"],
            Convert::Text,
        ),
    ),
    Row("user.name", From(&["message.affected_user"], Convert::Text)),
    Row(
        "related.hash",
        Related(&[
            Texts("message.file_sha1", "", Pick::Text),
            Texts("message.file_sha256", "", Pick::Text),
        ]),
    ),
    Row(
        "related.user",
        Related(&[
            Texts("message.affected_user", "", Pick::Address),
            Texts("message.mail_message_sender", "", Pick::Address),
            Texts("message.mail_message_recipient", "", Pick::Address),
        ]),
    ),
    Row("observer.product", Fixed(Literal::Text("Cloud App Security"))),
    Row("trendmicro.cloud_app_security.requested.service", Ours(Known::Member("service"))),
    Row("trendmicro.cloud_app_security.requested.event_type", Ours(Known::Member("event_type"))),
    Row("trendmicro.cloud_app_security.*", Rest),
];
