//! Trend Micro Apex Central: inventories of security agents and servers.
//!
//! `GET /WebApp/API/AgentResource/ProductAgents` and `…/ServerResource/ProductServers`, a JWT signed
//! over the final path for every attempt, the whole list in one answer. Nothing carries a time, so
//! what is listed happened when it was asked for. `result_code` decides, not HTTP alone.

use std::sync::Arc;
use std::time::Duration;

use super::{Connector, Mode, Product, Settings, Stream, is_chosen};
use crate::error::{Error, ErrorKind, Result};
use crate::http::{Request, auth::Scheme};
use crate::json::{Kind, Reader};
use crate::record::{Records, Shape};
use crate::window::Window;

/// Its line in the table of products.
pub const PRODUCT: Product = Product {
    name: "apex_central",
    // People paste the console's address, such as /WebApp/index.html.
    api_root: "/WebApp",
    regions: &[],
    content_types: &["agents", "servers"],
    defaults: &[("interval", "1h")],
    generated: &[],
    span_max: Duration::ZERO,
    is_budgeted: false,
    connect: |settings| Arc::new(ApexCentral::new(settings)),
};

const SOURCE: &str = "trendmicro_apexcentral";

struct ApexCentral {
    base_path: String,
    application_id: String,
    streams: Vec<Stream>,
}

impl ApexCentral {
    fn new(settings: &Settings) -> Self {
        let streams =
            PRODUCT.content_types.iter().filter(|name| is_chosen(&settings.content_types, name));
        let stream = |&content_type: &&'static str| Stream {
            name: content_type.to_owned(),
            content_type,
            msg_class: format!("{SOURCE}_{content_type}"),
            category: "endpoint",
            members: Vec::new(),
            mode: Mode::Inventory,
            shape: Shape {
                source: SOURCE,
                content_type,
                variant: "",
                time: &[],
                name: &["entity_id"],
                // Agents and servers write theirs in different case.
                folds_name: true,
            },
        };
        Self {
            base_path: settings.base_path.clone(),
            application_id: settings.application_id.clone(),
            streams: streams.map(stream).collect(),
        }
    }
}

impl Connector for ApexCentral {
    fn streams(&self) -> &[Stream] {
        &self.streams
    }

    fn scheme(&self) -> Scheme {
        Scheme::Jwt { application_id: self.application_id.clone() }
    }

    fn request(&self, stream: usize, _: &Window, _: Option<&str>) -> Request {
        let resource = match self.streams[stream].content_type {
            "servers" => "ServerResource/ProductServers",
            _ => "AgentResource/ProductAgents",
        };
        Request::get(format!("{}/WebApp/API/{resource}", self.base_path))
    }

    fn list(&self) -> &'static str {
        "result_content"
    }

    /// `{"result_code": 1, "result_description": "…", "result_content": […]}`. The description may
    /// change; 1 is the only code that means success, and then the list is there.
    fn read_frame(&self, frame: &str, _: &Records) -> Result<Option<String>> {
        let (mut code, mut description, mut has_list) = (None, String::new(), false);
        let mut reader = Reader::new(frame);
        reader.object(|reader, key| match (&*key, reader.peek()?) {
            ("result_code", Kind::Number) => {
                code = Some(reader.number()?.to_owned());
                Ok(())
            }
            ("result_description", Kind::String) => {
                description = reader.string()?.into_owned();
                Ok(())
            }
            ("result_content", Kind::Array) => {
                has_list = true;
                reader.skip().map(drop)
            }
            _ => reader.skip().map(drop),
        })?;
        reader.end()?;
        match code.as_deref() {
            Some("1") if has_list => Ok(None),
            Some("1") => Err(Error::retry("no list in \"result_content\"")),
            Some(code) => Err(Error::new(
                ErrorKind::Refused,
                format!("result_code {code}, the vendor says: {description}"),
            )),
            None => Err(Error::retry("no \"result_code\" in it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_code_decides() {
        let connector = ApexCentral::new(&Settings::default());
        let read = |frame: &str| {
            connector.read_frame(frame, &Records::default()).map_err(|error| error.kind())
        };
        assert_eq!(
            read(r#"{"result_code":1,"result_description":"x","result_content":[0]}"#),
            Ok(None)
        );
        assert_eq!(read(r#"{"result_code":1,"result_content":[]}"#), Ok(None));
        assert_eq!(
            read(r#"{"result_code":20,"result_description":"no","result_content":""}"#),
            Err(ErrorKind::Refused)
        );
        for frame in [r#"{"result_code":1,"result_content":""}"#, r#"{"result_content":[]}"#, "{}"]
        {
            assert_eq!(read(frame), Err(ErrorKind::Retry { floor: None }), "{frame}");
        }
    }
}
