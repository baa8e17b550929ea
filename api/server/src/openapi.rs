//! The OpenAPI document (3.1), out of the list of operations and their types.

use std::sync::LazyLock;

use pyro_client::operations::{self, Info, Method, NDJSON, Operation, Visitor};
use pyro_client::types::{ErrorBody, ExecEvent, RunEvent};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// The document.
pub fn openapi() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(generate);
    &DOCUMENT
}

struct Generator {
    /// For requests: what has a default is optional.
    requests: SchemaGenerator,
    /// For results: everything is there.
    results: SchemaGenerator,
    paths: Map<String, Value>,
}

fn settings() -> SchemaSettings {
    // Schemas of OpenAPI 3.1 are JSON Schema 2020-12.
    SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    })
}

fn generate() -> Value {
    let mut generator = Generator {
        requests: settings().for_deserialize().into_generator(),
        results: settings().for_serialize().into_generator(),
        paths: Map::new(),
    };
    operations::visit(&mut generator);
    let error = generator.results.subschema_for::<ErrorBody>();
    generator.extra(
        "/metrics",
        "metrics",
        "The daemon's metrics.",
        "application/openmetrics-text",
    );
    generator.extra(
        "/v1/openapi.json",
        "openapi",
        "This document.",
        "application/json",
    );
    let mut schemas = generator.requests.take_definitions(true);
    schemas.extend(generator.results.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "pyro",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Disposable Linux workspaces, each a microVM. Served on a Unix socket \
                that only its owner can reach.",
        },
        "paths": generator.paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Error": {
                    "description": "It failed; `code` says how, `remedy` what to do.",
                    "content": { "application/json": { "schema": error } },
                },
            },
        },
    })
}

impl Visitor for Generator {
    fn visit<O: Operation>(&mut self) {
        let info = O::INFO;
        let mut parameters = self.parameters::<O::Path>("path");
        let mut operation = json!({
            "operationId": info.id,
            "summary": info.summary,
            "responses": self.responses::<O>(),
        });
        match info.method {
            Method::Get | Method::Delete => parameters.extend(self.parameters::<O::Input>("query")),
            Method::Post | Method::Put | Method::Patch => {
                let schema = self.requests.subschema_for::<O::Input>();
                // `{}` stands for no body.
                let required = !self.required::<O::Input>().is_empty();
                operation["requestBody"] = json!({
                    "required": required,
                    "content": { "application/json": { "schema": schema } },
                });
            }
        }
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        self.add(&info, operation);
    }
}

impl Generator {
    fn add(&mut self, info: &Info, operation: Value) {
        let item = self
            .paths
            .entry(info.path)
            .or_insert_with(|| Map::new().into());
        item[info.method.as_str().to_ascii_lowercase()] = operation;
    }

    fn responses<O: Operation>(&mut self) -> Value {
        let mut content = Map::new();
        let result = self.results.subschema_for::<O::Output>();
        content.insert("application/json".into(), json!({ "schema": result }));
        // A stream has one of these a line. That a route streams is known here by its id alone: an
        // operation cannot be asked for a type that only some have.
        let event = match O::INFO.id {
            id if id == operations::Run::INFO.id => Some(self.results.subschema_for::<RunEvent>()),
            id if id == operations::WorkspaceExec::INFO.id => {
                Some(self.results.subschema_for::<ExecEvent>())
            }
            _ => None,
        };
        if let Some(event) = event {
            content.insert(NDJSON.into(), json!({ "schema": event }));
        }
        json!({
            "200": { "description": "It is done.", "content": content },
            "default": { "$ref": "#/components/responses/Error" },
        })
    }

    /// A type's members, one by one.
    fn members<T: JsonSchema>(&mut self) -> Map<String, Value> {
        let schema: Schema = T::json_schema(&mut self.requests);
        match schema.get("properties") {
            Some(Value::Object(members)) => members.clone(),
            _ => Map::new(),
        }
    }

    fn required<T: JsonSchema>(&mut self) -> Vec<Value> {
        let schema: Schema = T::json_schema(&mut self.requests);
        match schema.get("required") {
            Some(Value::Array(names)) => names.clone(),
            _ => Vec::new(),
        }
    }

    fn parameters<T: JsonSchema>(&mut self, place: &str) -> Vec<Value> {
        let required = self.required::<T>();
        let parameter = |(name, mut schema): (String, Value)| {
            let description = schema
                .as_object_mut()
                .and_then(|schema| schema.remove("description"));
            let required = place == "path" || required.contains(&name.as_str().into());
            let mut parameter = json!({
                "name": name, "in": place, "required": required, "schema": schema,
            });
            if let Some(description) = description {
                parameter["description"] = description;
            }
            parameter
        };
        self.members::<T>().into_iter().map(parameter).collect()
    }

    /// Something to be read that is no operation.
    fn extra(&mut self, path: &str, id: &str, summary: &str, media: &str) {
        let schema = if media == "application/json" {
            json!({ "type": "object" })
        } else {
            json!({ "type": "string" })
        };
        let operation = json!({
            "operationId": id,
            "summary": summary,
            "responses": {
                "200": { "description": summary, "content": { media: { "schema": schema } } },
                "default": { "$ref": "#/components/responses/Error" },
            },
        });
        self.paths.insert(path.into(), json!({ "get": operation }));
    }
}
