//! Mail tracking as OCSF's Email Activity.

use crate::format::table::Fill::{FirstList, Fixed, From, List};
use crate::format::table::{Convert, Delivered, Literal, Pick, Row, Texts};

/// The class: a message is followed through the organization.
pub const CLASS: &[Row] = &[
    Row("category_uid", Fixed(Literal::Number(4))),
    Row("category_name", Fixed(Literal::Text("Network Activity"))),
    Row("class_uid", Fixed(Literal::Number(4009))),
    Row("class_name", Fixed(Literal::Text("Email Activity"))),
    Row("activity_id", Fixed(Literal::Number(4))),
    Row("activity_name", Fixed(Literal::Text("Trace"))),
    Row("type_uid", Fixed(Literal::Number(400_904))),
    Row("type_name", Fixed(Literal::Text("Email Activity: Trace"))),
    Row("severity_id", Fixed(Literal::Number(1))),
    Row("severity", Fixed(Literal::Text("Informational"))),
    Row("metadata.product.name", Fixed(Literal::Text("Email Security"))),
];

/// What became of accepted traffic.
pub const ACCEPTED: &[Row] = &[
    Row("status_code", From(&["action"], Convert::Text)),
    Row(
        "status_id",
        From(
            &["action"],
            Convert::Classify(
                &[
                    ("Delivered", Literal::Number(1)),
                    ("Redirected", Literal::Number(1)),
                    ("Quarantined", Literal::Number(1)),
                    ("Deleted", Literal::Number(1)),
                    ("Bounced", Literal::Number(2)),
                    ("Expired", Literal::Number(2)),
                    ("Deferred", Literal::Number(2)),
                    ("Temporary delivery error", Literal::Number(2)),
                ],
                Literal::Number(0),
            ),
        ),
    ),
    Row(
        "action_id",
        From(
            &["action"],
            Convert::Classify(
                &[
                    ("Delivered", Literal::Number(1)),
                    ("Redirected", Literal::Number(4)),
                    ("Quarantined", Literal::Number(2)),
                    ("Deleted", Literal::Number(2)),
                    ("Submitted to sandbox", Literal::Number(3)),
                    ("Scanning in sandbox", Literal::Number(3)),
                    ("Password analyzing", Literal::Number(3)),
                ],
                Literal::Number(0),
            ),
        ),
    ),
    Row(
        "disposition_id",
        From(
            &["action"],
            Convert::Classify(
                &[
                    ("Delivered", Literal::Number(1)),
                    ("Quarantined", Literal::Number(3)),
                    ("Deleted", Literal::Number(5)),
                    ("Deferred", Literal::Number(14)),
                    ("Temporary delivery error", Literal::Number(27)),
                ],
                Literal::Number(0),
            ),
        ),
    ),
    Row("status_detail", From(&["details"], Convert::Text)),
];

/// What became of blocked traffic.
pub const BLOCKED: &[Row] = &[
    Row("status_code", From(&["reason"], Convert::Text)),
    Row("status_id", Fixed(Literal::Number(1))),
    Row("action_id", Fixed(Literal::Number(2))),
    Row("disposition_id", Fixed(Literal::Number(2))),
    Row("status_detail", From(&["details"], Convert::Text)),
];

/// What both have.
pub const MAIL: &[Row] = &[
    Row(
        "direction_id",
        From(
            &["direction"],
            Convert::Classify(
                &[("in", Literal::Number(1)), ("out", Literal::Number(2))],
                Literal::Number(0),
            ),
        ),
    ),
    Row(
        "direction",
        From(&["direction"], Convert::Rename(&[("in", "Inbound"), ("out", "Outbound")])),
    ),
    Row("protocol_name", Fixed(Literal::Text("SMTP"))),
    Row("message_trace_uid", From(&["mailID"], Convert::Text)),
    Row("from", From(&["sender"], Convert::Email)),
    Row("to", List(&[Texts("recipient", "", Pick::Email)])),
    Row("email.message_uid", From(&["messageID"], Convert::MessageId)),
    Row("email.subject", From(&["subject"], Convert::Text)),
    Row("email.size", From(&["size"], Convert::Long)),
    // A mail that was refused early has no headers, and the schema wants an address of either side.
    Row("email.from", From(&["headerFrom", "sender"], Convert::Email)),
    Row(
        "email.to",
        FirstList(&[Texts("headerTo", "", Pick::Email), Texts("recipient", "", Pick::Email)]),
    ),
    Row("email.files", From(&["attachments"], Convert::Each(FILE))),
    Row("email.urls", From(&["embeddedUrls"], Convert::Wrapped("url_string", Pick::Text))),
    Row("src_endpoint.ip", From(&["senderIP"], Convert::Ip)),
    Row("dst_endpoint.hostname", From(&["deliveredTo"], Convert::Delivered(Delivered::Host))),
    Row("dst_endpoint.ip", From(&["deliveredTo"], Convert::Delivered(Delivered::Ip))),
    Row("dst_endpoint.port", From(&["deliveredTo"], Convert::Delivered(Delivered::Port))),
    Row("metadata.original_time", From(&["timestamp"], Convert::Text)),
    Row("metadata.logged_time", From(&["genTime"], Convert::Millis)),
];

/// An attachment.
pub const FILE: &[Row] = &[
    Row("name", From(&["fileName"], Convert::Text)),
    Row("type_id", Fixed(Literal::Number(1))),
    Row("size", From(&["size"], Convert::Long)),
    Row("hashes[].algorithm", Fixed(Literal::Text("SHA-256"))),
    Row("hashes[].algorithm_id", Fixed(Literal::Number(3))),
    Row("hashes[].value", From(&["sha256"], Convert::Text)),
];
