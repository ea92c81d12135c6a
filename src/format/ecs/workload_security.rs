//! Workload Security's computers in ECS.

use crate::format::table::Fill::{Fixed, From, List, Related, Rest};
use crate::format::table::{Convert, Literal, Pick, Row, Texts};

/// What is said of computers.
pub const COMPUTERS: &[Row] = &[
    Row("host.id", From(&["hostGUID"], Convert::Text)),
    Row("host.name", From(&["displayName", "hostName"], Convert::Text)),
    Row("host.hostname", From(&["hostName"], Convert::Text)),
    Row(
        "host.ip",
        List(&[Texts("lastIPUsed", "", Pick::Ip), Texts("interfaces.interfaces", "IPs", Pick::Ip)]),
    ),
    Row("host.mac", List(&[Texts("interfaces.interfaces", "MAC", Pick::Mac)])),
    Row("host.os.full", From(&["platform"], Convert::Text)),
    Row(
        "host.os.type",
        From(
            &["platform"],
            Convert::ClassifyStart(
                &[
                    ("Microsoft Windows", Literal::Text("windows")),
                    ("Windows", Literal::Text("windows")),
                    ("Amazon Linux", Literal::Text("linux")),
                    ("CentOS", Literal::Text("linux")),
                    ("Debian", Literal::Text("linux")),
                    ("Oracle Linux", Literal::Text("linux")),
                    ("Red Hat", Literal::Text("linux")),
                    ("SUSE", Literal::Text("linux")),
                    ("Ubuntu", Literal::Text("linux")),
                    ("macOS", Literal::Text("macos")),
                    ("AIX", Literal::Text("unix")),
                    ("Solaris", Literal::Text("unix")),
                ],
                Literal::None,
            ),
        ),
    ),
    Row("agent.id", From(&["agentGUID"], Convert::Text)),
    Row("agent.version", From(&["agentVersion"], Convert::Text)),
    Row(
        "cloud.provider",
        From(
            &["ec2VirtualMachineSummary.cloudProvider"],
            Convert::Rename(&[("AWS", "aws"), ("AZURE", "azure"), ("GCP", "gcp")]),
        ),
    ),
    Row("cloud.account.id", From(&["ec2VirtualMachineSummary.accountID"], Convert::Text)),
    Row(
        "cloud.availability_zone",
        From(&["ec2VirtualMachineSummary.availabilityZone"], Convert::Text),
    ),
    Row("cloud.instance.id", From(&["ec2VirtualMachineSummary.instanceID"], Convert::Text)),
    Row("cloud.machine.type", From(&["ec2VirtualMachineSummary.type"], Convert::Text)),
    Row("related.hosts", Related(&[Texts("hostName", "", Pick::Text)])),
    Row(
        "related.ip",
        Related(&[
            Texts("lastIPUsed", "", Pick::Ip),
            Texts("interfaces.interfaces", "IPs", Pick::Ip),
        ]),
    ),
    Row("observer.product", Fixed(Literal::Text("Workload Security"))),
    Row("trendmicro.workload_security.*", Rest),
];
