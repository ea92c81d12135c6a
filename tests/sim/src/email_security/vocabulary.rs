//! The words that records are made of. Field names and the vendor's own terms are the vendor
//! reference's; people, domains and subjects are invented to be awkward.

/// Domains that the service protects.
pub(crate) const INTERNAL_DOMAINS: [&str; 3] = ["example.org", "example.com", "eu.example.com"];

pub(crate) const EXTERNAL_DOMAINS: [&str; 5] = [
    "example.net",
    "mail.example.edu",
    "xn--bcher-kva.example",
    "partner.test",
    "newsletter.long-domain-name-for-a-sender.example",
];

pub(crate) const LOCAL_PARTS: [&str; 16] = [
    "jane.doe",
    "john.doe",
    "cedric.martin",
    "noreply",
    "bounce+1700000000-tag=list",
    "o'brien",
    "postmaster",
    "a",
    "aiko.tanaka",
    "sales",
    "müller",
    "\"quoted local\"",
    "invoice",
    "it-helpdesk",
    "li.wei",
    "info",
];

/// Most subjects are plain; the others are what breaks parsers, encoders and terminals.
pub(crate) const PLAIN_SUBJECTS: [&str; 8] = [
    "Invoice",
    "Re: meeting notes",
    "Weekly report",
    "Your order has shipped",
    "Fwd: contract draft",
    "Password reset",
    "Lunch on Friday?",
    "Minutes of the quarterly planning session with all regional teams",
];

pub(crate) const ODD_SUBJECTS: [&str; 22] = [
    "",
    " ",
    "🚀 launch 🎉 party 👩‍👩‍👧‍👦 family",
    "会議の議事録について",
    "关于发票的通知",
    "회의록",
    "مرحبا، هذا هو التقرير الشهري",
    "\u{202e}reversed\u{202c} and back",
    "שלום עולם",
    "He said \"now\" and left",
    "C:\\Users\\jane\\report.docx",
    "back\\slash at the end\\",
    "tab\there, newline\nthere, return\r\n",
    "nul \u{0} inside",
    "bell \u{7} escape \u{1b}[31mred\u{1b}[0m delete \u{7f}",
    "line\u{2028}separator and byte order mark \u{feff}",
    "e\u{301} decomposed and é composed",
    "{\"nextToken\":\"not a token\",\"logs\":[]}",
    "</script><script>alert(1)</script>",
    "%2B %2F %3D %00 + / =",
    "=?UTF-8?B?SW52b2ljZQ==?=",
    "\u{10ffff} last of Unicode, \u{fffd} replacement",
];

/// What became of a mail, in the vendor's words; most are delivered.
pub(crate) const OTHER_ACTIONS: [&str; 8] = [
    "Quarantined",
    "Bounced",
    "Deleted",
    "Expired",
    "Redirected",
    "Deferred",
    "Temporary delivery error",
    "Password analyzing",
];

/// Why a mail was blocked, as the console words it.
pub(crate) const REASONS: [&str; 8] = [
    "Sender IP found in QIL",
    "Sender IP found in KSSL",
    "Sender IP found in DUL",
    "Sender IP found in ETL",
    "Sender IP found in block list",
    "Sender IP blocked",
    "Sender IP not allowed",
    "Rate limit temporarily exceeded",
];

pub(crate) const TLS_INFOS: [&str; 5] = [
    "upstreamTLS: TLS 1.2; downstreamTLS: TLS 1.2",
    "upstreamTLS: TLS 1.3; downstreamTLS: TLS 1.3",
    "upstreamTLS: TLS 1.2; downstreamTLS: None",
    "upstreamTLS: TLS 1.3",
    "upstreamTLS: None",
];

pub(crate) const DELIVERED_TO: [&str; 4] =
    ["antispam.example.org[5.6.7.8]:25", "2.2.2.2", "none", "mx.example.net[2001:db8::25]:25"];

pub(crate) const FILE_NAMES: [&str; 8] = [
    "attachment.pdf",
    "image001.png",
    "Rechnung März.pdf",
    "請求書.xlsx",
    "archive.tar.gz",
    "invoice.pdf.exe",
    "a \"quoted\" name.txt",
    "smime.p7s",
];

pub(crate) const URLS: [&str; 7] = [
    "https://aws.amazon.com",
    "https://cloud.google.com",
    "https://www.azure.com",
    "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd",
    "https://example.com/unsubscribe?id=%7B42%7D&list=news#top",
    "https://例え.example/パス",
    "http://example1.com",
];

/// Numbers that lose digits in a reader that takes every number for a double, or reject.
pub(crate) const FLOATS: [&str; 6] =
    ["0.1", "-7.0", "12.747600", "1e-7", "1.7976931348623157E+300", "-0.0"];

/// Values of the `event` parameter.
pub(crate) const EVENTS: [&str; 7] =
    ["anti_spoof", "threat", "spam", "content_filter", "dlp", "phishing", "anomaly"];

/// One kind of policy event.
pub(crate) struct PolicyEvent {
    /// The `event` parameter that selects it.
    pub(crate) event: &'static str,
    pub(crate) event_type: &'static str,
    pub(crate) subtype: &'static str,
    /// The fixture that its details come from; empty for none.
    pub(crate) details: &'static str,
}

const fn policy(
    event: &'static str,
    event_type: &'static str,
    subtype: &'static str,
    details: &'static str,
) -> PolicyEvent {
    PolicyEvent { event, event_type, subtype, details }
}

const APT: &str = "Advanced Persistent Threat";
const SPOOF: &str = "Domain-based Authentication";

/// The mapping of the vendor reference for `anti_spoof` and `threat`. It has no rows for the
/// other events, so their types are invented.
pub(crate) const POLICY_EVENTS: [PolicyEvent; 21] = [
    policy("anti_spoof", SPOOF, "Sender IP Match", ""),
    policy("anti_spoof", SPOOF, "SPF", ""),
    policy("anti_spoof", SPOOF, "DKIM", ""),
    policy("anti_spoof", SPOOF, "DMARC", ""),
    policy("anti_spoof", SPOOF, "DMARC - Alignment", ""),
    policy("threat", "Malware", "Pattern-based scanning", "malware"),
    policy("threat", "Malware", "Predictive Machine Learning", "malware"),
    policy("threat", "Ransomware", "", "ransomware_virus"),
    policy("threat", "Ransomware", "", "ransomware_violating_url"),
    policy("threat", "Suspicious Objects", "Suspicious Files", "suspicious_files"),
    policy("threat", "Suspicious Objects", "Suspicious URLs", "suspicious_urls"),
    policy("threat", APT, "Analyzed Advanced Threats (Files)", "apt_files"),
    policy("threat", APT, "Analyzed Advanced Threats (URLs)", "apt_urls"),
    policy("threat", APT, "Probable Advanced Threats", "apt_probable"),
    policy("threat", "Scan Exception", "Password protected attachment", ""),
    policy("threat", "Web Reputation", "", "suspicious_urls"),
    policy("spam", "Spam", "", "apt_probable"),
    policy("content_filter", "Content Filtering", "", ""),
    policy("dlp", "Data Loss Prevention", "", ""),
    policy("phishing", "Phishing", "", "apt_probable"),
    policy("anomaly", "Anomaly", "", ""),
];

pub(crate) const POLICY_NAMES: [&str; 5] = [
    "Organization: Virus",
    "Organization: Anti-spoof",
    "Organization: Spam or Phish",
    "Global DLP – outgoing",
    "ポリシー 1",
];

pub(crate) const POLICY_ACTIONS: [&str; 9] = [
    "Delete",
    "Quarantine",
    "Quarantined",
    "Deliver",
    "Bypass",
    "Tag Subject",
    "Insert X-Header",
    "Change recipient",
    "Clean cleanable malware, delete those that cannot be cleaned",
];
