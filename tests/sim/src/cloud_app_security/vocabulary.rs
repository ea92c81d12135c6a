//! The services and events, by the names of requests and by those of answers, and the words that
//! records are made of. A stream is a service with an event.

/// What a service's records are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Matter {
    Mail,
    File,
    Chat,
}

pub(crate) struct Service {
    /// The parameter.
    pub(crate) name: &'static str,
    /// The text in the records.
    pub(crate) title: &'static str,
    pub(crate) matter: Matter,
}

const fn service(name: &'static str, title: &'static str, matter: Matter) -> Service {
    Service { name, title, matter }
}

/// Only the titles of Exchange Online, OneDrive and Dropbox are known; the others are guessed.
pub(crate) const SERVICES: [Service; 12] = [
    service("exchange", "Exchange Online", Matter::Mail),
    service("sharepoint", "SharePoint", Matter::File),
    service("onedrive", "OneDrive", Matter::File),
    service("dropbox", "Dropbox", Matter::File),
    service("box", "Box", Matter::File),
    service("googledrive", "Google Drive", Matter::File),
    service("gmail", "Gmail", Matter::Mail),
    service("teams", "Teams", Matter::File),
    service("exchangeserver", "Exchange Server", Matter::Mail),
    service("salesforce_sandbox", "Salesforce Sandbox", Matter::File),
    service("salesforce_production", "Salesforce Production", Matter::File),
    service("teams_chat", "Teams Chat", Matter::Chat),
];

/// The kinds of events, in the order of [`EVENTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    SecurityRisk,
    VirtualAnalyzer,
    Ransomware,
    Dlp,
}

/// Parameter and text in the records. Only the first text is known for certain.
pub(crate) const EVENTS: [(&str, &str, Event); 4] = [
    ("securityrisk", "security_risk_scan", Event::SecurityRisk),
    ("virtualanalyzer", "virtual_analyzer", Event::VirtualAnalyzer),
    ("ransomware", "ransomware", Event::Ransomware),
    ("dlp", "data_loss_prevention", Event::Dlp),
];

pub(crate) const STREAMS: usize = SERVICES.len() * EVENTS.len();

pub(crate) fn service_of(stream: usize) -> &'static Service {
    &SERVICES[stream / EVENTS.len()]
}

pub(crate) fn event_of(stream: usize) -> Event {
    EVENTS[stream % EVENTS.len()].2
}

/// The stream of a service and an event, by their parameters.
pub(crate) fn stream(service: &str, event: &str) -> Option<usize> {
    let service = SERVICES.iter().position(|known| known.name == service)?;
    let event = EVENTS.iter().position(|known| known.0 == event)?;
    Some(service * EVENTS.len() + event)
}

/// `service/event`, as requested.
pub(crate) fn content_type(stream: usize) -> String {
    format!("{}/{}", service_of(stream).name, EVENTS[stream % EVENTS.len()].0)
}

pub(crate) fn is_of(stream: usize, services: &[String]) -> bool {
    services.iter().any(|service| service == service_of(stream).name)
}

pub(crate) const SCAN_TYPES: [&str; 2] = ["Real-time scan", "Manual scan"];
pub(crate) const ACTIONS: [&str; 6] =
    ["Quarantine", "Pass", "Delete", "Tag subject", "Replace with text", "Label email"];
pub(crate) const RESULTS: [&str; 4] = ["success", "success", "failed", ""];
pub(crate) const FILTERS: [&str; 4] =
    ["Malware Scanning", "File Blocking", "Web Reputation", "Advanced Spam Protection"];
pub(crate) const DETECTED_BY: [&str; 4] =
    ["", "Pattern-based scanning", "Web Reputation", "Predictive Machine Learning"];
pub(crate) const RISK_LEVELS: [&str; 5] = ["", "High", "Medium", "Low", "Dangerous"];
pub(crate) const RISKS: [&str; 4] =
    ["Malware: Eicar_test_file", "http://wrs21.example.com", "setup.exe", "Phishing: \"CEO\""];
pub(crate) const VIRUSES: [&str; 3] = ["VAN_DROPPER.UMXX", "VAN_WORM.UMXX", "VAN_FILE_INFECTOR"];
pub(crate) const DETECTION_TYPES: [&str; 2] = ["File", "URL"];
pub(crate) const RANSOMWARES: [&str; 3] =
    ["Ransom_EXAMPLE.A", "Ransom.Win32.EXAMPLE.SMTH", "Ransom_クリプト.B"];
pub(crate) const TEMPLATES: [&str; 5] = [
    "US: PCI-DSS",
    "All: Credit Card Number",
    "Germany: Personalausweisnummer – „neu“",
    "日本: マイナンバー",
    "UK: NHS number",
];
