//! The mirrored structures against those of a C compiler, and against an independent description of
//! what hosts before and from 4.1 on have.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

use in_trendmicro::ffi::abi::{
    flb_api, flb_plugin_input_proxy_context, flb_plugin_proxy_def, flbgo_input_plugin,
};

/// Sizes under a structure's name, offsets under `structure.field`.
type Layouts = BTreeMap<String, usize>;

macro_rules! layout {
    ($layouts:ident, $structure:ident: $($field:ident),+) => {
        $layouts.insert(stringify!($structure).to_owned(), size_of::<$structure>());
        $(
            let field = stringify!($field).trim_start_matches("r#");
            let name = format!("{}.{field}", stringify!($structure));
            $layouts.insert(name, offset_of!($structure, $field));
        )+
    };
}

/// What the code believes.
fn ours() -> Layouts {
    let mut all = Layouts::new();
    layout!(all, flb_plugin_proxy_def: r#type, proxy, flags, name, description);
    layout!(all, flbgo_input_plugin: name, api, i_ins, context, cb_init, cb_collect, slot_48);
    layout!(all, flb_plugin_input_proxy_context: coll_fd, remote_context);
    layout!(all, flb_api: output_get_property, input_get_property, output_get_cmt_instance,
        input_get_cmt_instance, log_print, input_log_check, output_log_check);
    all
}

/// What a C compiler makes of the header.
fn by_c_compiler(names: &Layouts) -> Layouts {
    let mut program =
        "#include \"in_trendmicro.h\"\n#include <stdio.h>\nint main(void) {\n".to_owned();
    for name in names.keys() {
        let value = match name.split_once('.') {
            Some((structure, field)) => format!("offsetof(struct {structure}, {field})"),
            None => format!("sizeof(struct {name})"),
        };
        writeln!(program, "printf(\"{name} %zu\\n\", {value});").unwrap();
    }
    program.push_str("return 0;\n}\n");
    let dir = tempfile::tempdir().unwrap();
    let (source, probe) = (dir.path().join("probe.c"), dir.path().join("probe"));
    std::fs::write(&source, program).unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let mut compile = Command::new("cc");
    compile.args(["-Wall", "-Werror", "-I"]).arg(include).arg(&source).arg("-o").arg(&probe);
    let output = compile.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(&probe).output().unwrap();
    let line = |line: &str| {
        let (name, value) = line.split_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    String::from_utf8(output.stdout).unwrap().lines().map(line).collect()
}

#[test]
fn a_c_compiler_lays_the_header_out_as_the_code_does() {
    let ours = ours();
    assert_eq!(by_c_compiler(&ours), ours);
}

/// Compares the fields of one of our structures with those of a host's.
fn assert_prefix(structure: &str, host: &str, renamed: &[(&str, &str)]) {
    let (ours, hosts) = (ours(), embedded_host::layouts());
    let size = |name: &str| hosts.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    let prefix = format!("{structure}.");
    let mut fields = 0;
    for (name, offset) in &ours {
        let Some(field) = name.strip_prefix(&prefix) else { continue };
        let known = renamed.iter().find(|(ours, _)| *ours == field).map_or(field, |(_, name)| name);
        assert_eq!(Some(*offset), size(&format!("{host}.{known}")), "{host}.{known}");
        fields += 1;
    }
    assert!(fields > 1, "{structure} has fields");
    assert!(ours[structure] <= size(host).unwrap(), "{structure} reaches beyond {host}");
}

#[test]
fn what_is_mirrored_is_a_prefix_of_what_every_host_has() {
    assert_prefix("flb_plugin_proxy_def", "def_32", &[]);
    assert_prefix("flb_api", "api_56", &[]);
    assert_prefix("flbgo_input_plugin", "plugin_64", &[("slot_48", "cb_cleanup")]);
    assert_prefix("flbgo_input_plugin", "plugin_80", &[("slot_48", "cb_collect_ctx")]);
    assert_prefix("flb_plugin_input_proxy_context", "context_24", &[]);
}

#[test]
fn nothing_is_written_where_an_old_host_has_something_else() {
    let hosts: Layouts = embedded_host::layouts().into_iter().collect();
    let ours = ours();
    assert_eq!(ours["flb_plugin_proxy_def"], hosts["def_32"], "writing more overruns old hosts");
    assert_eq!(hosts["def_40.event_type"], ours["flb_plugin_proxy_def"], "the next field");
    assert_eq!(ours["flb_api"], hosts["api_56"]);
    assert_eq!(hosts["api_72.custom_get_property"], ours["flb_api"], "what newer hosts add");
    assert_eq!(
        hosts["api_72"],
        in_trendmicro::ffi::abi::FLB_API_BYTES_4_0_3,
        "how newer hosts show"
    );
    // Before 4.1 the context holds another pointer there: it may be written only when the slot
    // behind the plain collect callback shows a newer host.
    let written = ours["flb_plugin_input_proxy_context.remote_context"];
    assert_eq!(written, hosts["context_16.proxy"]);
    assert_eq!(hosts["plugin_64.cb_cleanup"], hosts["plugin_80.cb_collect_ctx"]);
    assert_eq!(hosts["plugin_64.cb_cleanup"], 48, "the slot that tells them apart");
}
