//! One configuration in the host's two spellings.

use std::fmt::Write as _;

/// A section: its properties in order.
#[derive(Clone, Debug, Default)]
pub struct Section(Vec<(String, String)>);

impl Section {
    /// Sets a property, in its old place if it has one.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((key.to_owned(), value.to_owned())),
        }
        self
    }

    /// Leaves a property out.
    pub fn without(mut self, key: &str) -> Self {
        self.0.retain(|(name, _)| name != key);
        self
    }
}

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub service: Section,
    pub inputs: Vec<Section>,
    pub outputs: Vec<Section>,
}

impl Config {
    /// Sets properties of every input.
    pub fn with(mut self, properties: &[(&str, &str)]) -> Self {
        for input in &mut self.inputs {
            for (key, value) in properties {
                *input = std::mem::take(input).set(key, value);
            }
        }
        self
    }

    /// Sets a property of the service.
    pub fn service(mut self, key: &str, value: &str) -> Self {
        self.service = self.service.set(key, value);
        self
    }

    /// Lets each tag have a file of its own.
    pub fn file_per_tag(mut self) -> Self {
        self.outputs = self.outputs.into_iter().map(|output| output.without("file")).collect();
        self
    }

    /// The classic format.
    pub fn classic(&self) -> String {
        let mut text = String::new();
        let inputs = self.inputs.iter().map(|section| ("INPUT", section));
        let outputs = self.outputs.iter().map(|section| ("OUTPUT", section));
        let sections = std::iter::once(("SERVICE", &self.service)).chain(inputs).chain(outputs);
        for (name, Section(properties)) in sections {
            let _ = writeln!(text, "[{name}]");
            for (key, value) in properties {
                let _ = writeln!(text, "    {key} {value}");
            }
        }
        text
    }

    /// YAML.
    pub fn yaml(&self) -> String {
        let mut text = "service:\n".to_owned();
        for (key, value) in &self.service.0 {
            let _ = writeln!(text, "  {key}: '{value}'");
        }
        text.push_str("pipeline:\n");
        for (name, sections) in [("inputs", &self.inputs), ("outputs", &self.outputs)] {
            let _ = writeln!(text, "  {name}:");
            for Section(properties) in sections {
                for (i, (key, value)) in properties.iter().enumerate() {
                    let mark = if i == 0 { '-' } else { ' ' };
                    let _ = writeln!(text, "    {mark} {key}: '{value}'");
                }
            }
        }
        text
    }
}
