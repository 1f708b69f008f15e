//! One frame as tshark has understood it.

use serde_json::{Map, Value};

/// What the comparison looks at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frame {
    /// All its bytes, in hex.
    pub(crate) raw: String,
    /// The address it comes from.
    pub(crate) source: String,
    /// The queue pair it goes to, in hex.
    pub(crate) queue_pair: String,
    /// Its number there, in hex.
    pub(crate) number: String,
    /// Opcode of the transport header.
    pub(crate) opcode: u64,
    /// Attribute of a management datagram.
    pub(crate) attribute: Option<String>,
    /// The SDP layer, if there is one.
    pub(crate) sdp: Option<Sdp>,
    /// Address, key and length of an RDMA request, in hex.
    pub(crate) reth: Option<[String; 3]>,
    /// tshark calls it malformed.
    pub(crate) malformed: bool,
}

/// The SDP layer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sdp {
    /// Its bytes in hex, padding included.
    pub(crate) raw: String,
    /// Fields by name, with the layer's prefix taken off: as shown.
    shown: Map<String, Value>,
}

/// Prefix of the layer's fields.
const PREFIX: &str = "infiniband_sdp.";

impl Sdp {
    /// The bytes behind a field, in hex.
    pub(crate) fn bytes(&self, name: &str) -> Option<&str> {
        let field = self.shown.get(&format!("{name}_raw"))?;
        field.get(0)?.as_str()
    }

    /// A field that is shown as a number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        let text = self.shown.get(name)?.as_str()?;
        match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        }
    }
}

impl Frame {
    /// Reads one element of tshark's JSON.
    pub(super) fn of(packet: &Value) -> Self {
        let layers = &packet["_source"]["layers"];
        let infiniband = &layers["infiniband"];
        let opcode = infiniband["infiniband.bth_tree"]["infiniband.bth.opcode"].as_str();
        let attribute = &infiniband["infiniband.mad_tree"]["infiniband.mad.attributeid"];
        let header = &infiniband["infiniband.bth_tree"];
        let bytes = |layer: &Value, name: &str| text(&layer[format!("{name}_raw")][0]);
        Self {
            raw: text(&layers["frame_raw"][0]),
            source: text(&layers["ip"]["ip.src"]),
            queue_pair: bytes(header, "infiniband.bth.destqp"),
            number: bytes(header, "infiniband.bth.psn"),
            opcode: opcode
                .and_then(|text| text.parse().ok())
                .unwrap_or(u64::MAX),
            attribute: attribute.as_str().map(str::to_owned),
            sdp: layers.get("infiniband_sdp").map(|layer| Sdp {
                raw: text(&layers["infiniband_sdp_raw"][0]),
                shown: flatten(layer),
            }),
            reth: reth(&infiniband["infiniband.reth_tree"]),
            malformed: layers.get("_ws.malformed").is_some(),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn reth(tree: &Value) -> Option<[String; 3]> {
    tree.is_object().then(|| {
        ["va", "r_key", "dmalen"].map(|name| text(&tree[format!("infiniband.reth.{name}_raw")][0]))
    })
}

/// All fields below a layer, however deep.
fn flatten(layer: &Value) -> Map<String, Value> {
    let mut found = Map::new();
    for (name, value) in layer.as_object().into_iter().flatten() {
        if value.is_object() {
            found.extend(flatten(value));
        } else if let Some(name) = name.strip_prefix(PREFIX) {
            found.insert(name.to_owned(), value.clone());
        }
    }
    found
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A frame such as tshark shows: `raw` is the message, `fields` are those of its base header.
    pub(in super::super) fn packet(opcode: u8, raw: &str, fields: &[(&str, &str)]) -> Value {
        let mut header = Map::new();
        for (name, hex) in fields {
            header.insert(format!("{PREFIX}bsdh.{name}_raw"), json!([hex, 0, 1, 0, 4]));
        }
        json!({ "_source": { "layers": {
            "infiniband": { "infiniband.bth_tree": {
                "infiniband.bth.opcode": opcode.to_string() } },
            "infiniband_sdp_raw": [raw, 54, 16, 0, 1],
            "infiniband_sdp": { "infiniband_sdp.bsdh": header,
                "infiniband_sdp.hh": { "infiniband_sdp.hh.localport": "40000",
                    "infiniband_sdp.hh.majv": "0x02" } },
        } } })
    }

    #[test]
    fn fields_are_found_at_any_depth() {
        let frame = Frame::of(&packet(4, "ff00", &[("mid", "ff")]));
        assert_eq!((frame.opcode, frame.malformed), (4, false));
        let sdp = frame.sdp.unwrap();
        assert_eq!(sdp.raw, "ff00");
        assert_eq!(sdp.bytes("bsdh.mid"), Some("ff"));
        assert_eq!(sdp.number("hh.localport"), Some(40_000));
        assert_eq!(sdp.number("hh.majv"), Some(2));
        assert_eq!(sdp.number("hh.absent"), None);
    }

    #[test]
    fn a_frame_of_something_else_is_no_message() {
        let frame = Frame::of(&json!({ "_source": { "layers": { "_ws.malformed": "x" } } }));
        assert!(frame.sdp.is_none() && frame.malformed);
    }
}
