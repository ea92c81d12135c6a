//! Email Security in ECS: mail tracking, policy events, and Sekoia.io's mapping of them.

use crate::format::table::Fill::{Fixed, From, List, Ours, Related, Rest, Time};
use crate::format::table::{Convert, Delivered, Literal, Ours as Known, Pick, Row, Texts, Tls};

/// What Sekoia.io's parser makes of mail tracking today, and nothing more.
pub const SEKOIA: &[Row] = &[
    Row("message", Ours(Known::Original)),
    Row("event.action", From(&["action"], Convert::Text)),
    Row("event.category", Fixed(Literal::Texts(&["email"]))),
    Row("event.type", Fixed(Literal::Texts(&["info"]))),
    Row("@timestamp", Time("timestamp")),
    Row(
        "email.attachments",
        From(
            &["attachments"],
            Convert::Each(&[
                Row("file.hash.sha256", From(&["sha256"], Convert::Text)),
                Row("file.name", From(&["fileName"], Convert::Text)),
            ]),
        ),
    ),
    Row("email.from.address", From(&["headerFrom"], Convert::Text)),
    Row("email.local_id", From(&["mailID"], Convert::Text)),
    Row("email.message_id", From(&["messageID"], Convert::MessageId)),
    Row("email.sender.address", From(&["sender"], Convert::Text)),
    Row("email.subject", From(&["subject"], Convert::Text)),
    Row("email.to.address", List(&[Texts("headerTo", "", Pick::Text)])),
    Row("trendmicro.email.embedded_urls", List(&[Texts("embeddedUrls", "", Pick::Text)])),
];

/// What Sekoia.io's page showed in 2023: with `event.kind`, the hash as a plain text, and recipients
/// sorted.
pub const SEKOIA_2023: &[Row] = &[
    Row("message", Ours(Known::Original)),
    Row("event.action", From(&["action"], Convert::Text)),
    Row("event.category", Fixed(Literal::Texts(&["email"]))),
    Row("event.kind", Fixed(Literal::Text("event"))),
    Row("event.type", Fixed(Literal::Texts(&["info"]))),
    Row("@timestamp", Time("timestamp")),
    Row(
        "email.attachments",
        From(
            &["attachments"],
            Convert::Each(&[
                Row("file.hash", From(&["sha256"], Convert::Text)),
                Row("file.name", From(&["fileName"], Convert::Text)),
            ]),
        ),
    ),
    Row("email.from.address", From(&["headerFrom"], Convert::Text)),
    Row("email.local_id", From(&["mailID"], Convert::Text)),
    Row("email.message_id", From(&["messageID"], Convert::MessageId)),
    Row("email.sender.address", From(&["sender"], Convert::Text)),
    Row("email.subject", From(&["subject"], Convert::Text)),
    Row("email.to.address", List(&[Texts("headerTo", "", Pick::Sorted)])),
    Row("trendmicro.email.embedded_urls", List(&[Texts("embeddedUrls", "", Pick::Text)])),
];

/// How it went with accepted traffic.
pub const ACCEPTED: &[Row] = &[Row(
    "event.outcome",
    From(
        &["action"],
        Convert::Classify(
            &[
                ("Delivered", Literal::Text("success")),
                ("Redirected", Literal::Text("success")),
                ("Quarantined", Literal::Text("success")),
                ("Deleted", Literal::Text("success")),
                ("Bounced", Literal::Text("failure")),
                ("Expired", Literal::Text("failure")),
                ("Deferred", Literal::Text("failure")),
                ("Temporary delivery error", Literal::Text("failure")),
            ],
            Literal::Text("unknown"),
        ),
    ),
)];

/// How it went with blocked traffic: it was blocked.
pub const BLOCKED: &[Row] = &[Row("event.outcome", Fixed(Literal::Text("success")))];

/// Mail tracking: what became of a mail.
pub const TRACKING: &[Row] = &[
    Row("event.action", From(&["action"], Convert::Text)),
    Row("event.category", Fixed(Literal::Texts(&["email"]))),
    Row("event.kind", Fixed(Literal::Text("event"))),
    Row("event.type", Fixed(Literal::Texts(&["info"]))),
    Row("event.reason", From(&["reason"], Convert::Text)),
    Row("destination.user.email", From(&["recipient"], Convert::Text)),
    Row("trendmicro.email.delivery_details", From(&["details"], Convert::Text)),
];

/// Policy events: what a policy found in a mail.
pub const POLICY: &[Row] = &[
    Row("event.action", From(&["policyAction"], Convert::Text)),
    Row(
        "event.category",
        From(
            &["eventType"],
            Convert::Classify(
                &[
                    ("Malware", Literal::Texts(&["email", "malware"])),
                    ("Ransomware", Literal::Texts(&["email", "malware"])),
                    ("Suspicious Objects", Literal::Texts(&["email", "malware"])),
                    ("Advanced Persistent Threat", Literal::Texts(&["email", "malware"])),
                ],
                Literal::Texts(&["email"]),
            ),
        ),
    ),
    Row("event.kind", Fixed(Literal::Text("alert"))),
    Row("event.type", Fixed(Literal::Texts(&["info"]))),
    Row("rule.name", From(&["policyName"], Convert::Text)),
    Row("rule.category", From(&["eventType"], Convert::Text)),
    Row("threat.indicator.name", From(&["details.threatNames"], Convert::Text)),
    Row("trendmicro.email.event_subtype", From(&["eventSubtype"], Convert::Text)),
    Row("trendmicro.email.domain_name", From(&["domainName"], Convert::Text)),
    Row("trendmicro.email.recipients", List(&[Texts("recipients", "", Pick::Text)])),
];

/// What both have.
pub const MAIL: &[Row] = &[
    Row("event.created", From(&["genTime"], Convert::Date)),
    Row("@timestamp", Time("timestamp")),
    Row(
        "email.attachments",
        From(
            &["attachments"],
            Convert::Each(&[
                Row("file.hash.sha256", From(&["sha256"], Convert::Text)),
                Row("file.name", From(&["fileName"], Convert::Text)),
                Row("file.size", From(&["size"], Convert::Long)),
            ]),
        ),
    ),
    Row("email.delivery_timestamp", From(&["deliveryTime"], Convert::Date)),
    Row(
        "email.direction",
        From(&["direction"], Convert::Rename(&[("in", "inbound"), ("out", "outbound")])),
    ),
    Row("email.from.address", From(&["headerFrom"], Convert::Address)),
    Row("email.local_id", From(&["mailID"], Convert::Text)),
    Row("email.message_id", From(&["messageID"], Convert::MessageId)),
    Row("email.sender.address", From(&["sender"], Convert::Text)),
    Row("email.subject", From(&["subject"], Convert::Text)),
    Row("email.to.address", List(&[Texts("headerTo", "", Pick::Address)])),
    Row("source.address", From(&["senderIP"], Convert::Text)),
    Row("source.ip", From(&["senderIP"], Convert::Ip)),
    Row("destination.domain", From(&["deliveredTo"], Convert::Delivered(Delivered::Host))),
    Row("destination.ip", From(&["deliveredTo"], Convert::Delivered(Delivered::Ip))),
    Row("destination.port", From(&["deliveredTo"], Convert::Delivered(Delivered::Port))),
    Row("tls.version", From(&["tlsInfo"], Convert::Tls(Tls::Version))),
    Row("tls.established", From(&["tlsInfo"], Convert::Tls(Tls::Established))),
    Row(
        "related.hash",
        Related(&[
            Texts("attachments", "sha256", Pick::Text),
            Texts("details.fileInfo", "fileSha256", Pick::Text),
            Texts("details.urlInfo", "attachmentSha256", Pick::Text),
        ]),
    ),
    Row("related.hosts", Related(&[Texts("deliveredTo", "", Pick::DeliveredHost)])),
    Row(
        "related.ip",
        Related(&[Texts("senderIP", "", Pick::Ip), Texts("deliveredTo", "", Pick::DeliveredIp)]),
    ),
    Row(
        "related.user",
        Related(&[
            Texts("sender", "", Pick::Address),
            Texts("headerFrom", "", Pick::Address),
            Texts("recipient", "", Pick::Address),
            Texts("recipients", "", Pick::Address),
            Texts("headerTo", "", Pick::Address),
        ]),
    ),
    Row("observer.product", Fixed(Literal::Text("Email Security"))),
    Row("trendmicro.email.size", From(&["size"], Convert::Long)),
    Row("trendmicro.email.tls_info", From(&["tlsInfo"], Convert::Text)),
    Row("trendmicro.email.delivered_to", From(&["deliveredTo"], Convert::Text)),
    Row("trendmicro.email.embedded_urls", List(&[Texts("embeddedUrls", "", Pick::Text)])),
];

/// Where the rest goes.
pub const REST: &[Row] = &[Row("trendmicro.email.*", Rest)];
