//! A collector of traces, as OpenTelemetry's protocol has it: OTLP over HTTP.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{ResourceSpans, Span},
};
use prost::Message;

/// What a collector has got.
#[derive(Clone, Default)]
pub(crate) struct Collector(Arc<Mutex<Vec<ResourceSpans>>>);

/// A span, and the service that it is of.
#[derive(Clone, Debug)]
pub(crate) struct Of {
    pub(crate) service: String,
    pub(crate) span: Span,
}

impl Of {
    /// An attribute as text, empty if there is none.
    pub(crate) fn text(&self, attribute_name: &str) -> String {
        attribute(&self.span.attributes, attribute_name)
    }
}

impl Collector {
    /// Begins to listen. Returns its URL.
    pub(crate) async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().route("/v1/traces", post(collect)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        url
    }

    pub(crate) fn all(&self) -> Vec<ResourceSpans> {
        self.0.lock().unwrap().clone()
    }

    /// All spans by now.
    pub(crate) fn spans(&self) -> Vec<Of> {
        let mut spans = Vec::new();
        for of in self.all() {
            let service =
                of.resource.map(|resource| attribute(&resource.attributes, "service.name"));
            let service = service.unwrap_or_default();
            for span in of.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(Of { service: service.clone(), span });
            }
        }
        spans
    }
}

async fn collect(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> Vec<u8> {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    collector.0.lock().unwrap().extend(request.resource_spans);
    Vec::new()
}

/// An attribute as text, empty if there is none.
pub(crate) fn attribute(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|pair| pair.key == name);
    match found.and_then(|pair| pair.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

/// An id as it is written.
pub(crate) fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
