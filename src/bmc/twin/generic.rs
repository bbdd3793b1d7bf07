//! A server of no particular make: what a rack needs of one, and as many parts as a usual one has.

use serde_json::{Value, json};

const ROOT: &str = "/redfish/v1";

fn link(path: &str) -> Value {
    json!({ "@odata.id": path })
}

fn list(path: &str, members: &[String]) -> (String, Value) {
    let members: Vec<Value> = members.iter().map(|member| link(member)).collect();
    (path.to_owned(), json!({ "@odata.id": path, "Members@odata.count": members.len(), "Members": members }))
}

const SYSTEM: &str = "/redfish/v1/Systems/1";
const MANAGER: &str = "/redfish/v1/Managers/1";

type Documents = Vec<(String, Value)>;

fn at(path: &str, mut value: Value) -> (String, Value) {
    value["@odata.id"] = json!(path);
    (path.to_owned(), value)
}

/// Its documents, by path.
pub(super) fn documents() -> Documents {
    [root(), system(), manager(), parts()].concat()
}

fn root() -> Documents {
    vec![
        at(
            ROOT,
            json!({
                "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot", "RedfishVersion": "1.15.0", "Name": "Simulated BMC",
                "Systems": link("/redfish/v1/Systems"), "Managers": link("/redfish/v1/Managers"),
                "UpdateService": link("/redfish/v1/UpdateService"),
                "Links": { "Sessions": link("/redfish/v1/SessionService/Sessions") },
            }),
        ),
        list("/redfish/v1/Systems", &[SYSTEM.to_owned()]),
        list("/redfish/v1/Managers", &[MANAGER.to_owned()]),
    ]
}

fn system() -> Documents {
    vec![
        at(
            SYSTEM,
            json!({
                "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem", "Id": "1", "Manufacturer": "Generic",
                "Model": "Simulated server", "SerialNumber": "0", "UUID": "00000000-0000-4000-8000-000000000000",
                "PowerState": "Off", "LocationIndicatorActive": false, "BiosVersion": "1.0",
                "MemorySummary": { "TotalSystemMemoryGiB": 2048 },
                "Processors": link(&format!("{SYSTEM}/Processors")), "Storage": link(&format!("{SYSTEM}/Storage")),
                "EthernetInterfaces": link(&format!("{SYSTEM}/EthernetInterfaces")),
                "Bios": link(&format!("{SYSTEM}/Bios")),
                "Boot": { "BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None",
                    "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Cd", "Hdd", "UefiHttp"],
                    "BootSourceOverrideEnabled@Redfish.AllowableValues": ["Disabled", "Once", "Continuous"] },
                "Links": { "ManagedBy": [link(MANAGER)] },
                "Actions": { "#ComputerSystem.Reset": {
                    "target": format!("{SYSTEM}/Actions/ComputerSystem.Reset"),
                    "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "ForceRestart", "GracefulShutdown"] } },
            }),
        ),
        at(
            &format!("{SYSTEM}/Bios"),
            json!({ "Attributes": { "BootMode": "Uefi" },
                "@Redfish.Settings": { "SettingsObject": link(&format!("{SYSTEM}/Bios/Settings")) } }),
        ),
        at(&format!("{SYSTEM}/Bios/Settings"), json!({ "Attributes": {} })),
    ]
}

fn manager() -> Documents {
    let slot = format!("{MANAGER}/VirtualMedia/CD");
    vec![
        at(
            MANAGER,
            json!({ "Id": "1", "Model": "Simulated BMC", "FirmwareVersion": "1.0",
                "VirtualMedia": link(&format!("{MANAGER}/VirtualMedia")) }),
        ),
        list(&format!("{MANAGER}/VirtualMedia"), std::slice::from_ref(&slot)),
        at(
            &slot,
            json!({ "Id": "CD", "MediaTypes": ["CD", "DVD"], "Inserted": false, "Image": null, "Actions": {
                "#VirtualMedia.InsertMedia": { "target": format!("{slot}/Actions/VirtualMedia.InsertMedia") },
                "#VirtualMedia.EjectMedia": { "target": format!("{slot}/Actions/VirtualMedia.EjectMedia") } } }),
        ),
    ]
}

fn parts() -> Documents {
    let mut documents = vec![
        at(
            "/redfish/v1/UpdateService",
            json!({ "FirmwareInventory": link("/redfish/v1/UpdateService/FirmwareInventory") }),
        ),
        list(&format!("{SYSTEM}/Storage"), &[format!("{SYSTEM}/Storage/1")]),
        at(
            &format!("{SYSTEM}/Storage/1"),
            json!({ "Id": "1", "Drives": [link(&format!("{SYSTEM}/Storage/1/Drives/0"))] }),
        ),
        at(
            &format!("{SYSTEM}/Storage/1/Drives/0"),
            json!({ "Id": "0", "Name": "NVMe 0", "Protocol": "NVMe", "CapacityBytes": 1_920_383_410_176_u64,
                "SerialNumber": "0", "Model": "Simulated NVMe" }),
        ),
    ];
    let parts = [
        (
            format!("{SYSTEM}/Processors"),
            2,
            json!({ "ProcessorType": "CPU", "Model": "CPU", "TotalCores": 64, "TotalThreads": 128 }),
        ),
        (format!("{SYSTEM}/EthernetInterfaces"), 2, json!({ "MACAddress": "02:00:00:00:00:00" })),
        ("/redfish/v1/UpdateService/FirmwareInventory".to_owned(), 4, json!({ "Version": "1.0" })),
    ];
    for (collection, count, part) in parts {
        let members: Vec<String> = (0..count).map(|n| format!("{collection}/{n}")).collect();
        for (n, member) in members.iter().enumerate() {
            let mut part = part.clone();
            (part["Id"], part["Name"]) = (json!(n.to_string()), json!(format!("part {n}")));
            documents.push(at(member, part));
        }
        documents.push(list(&collection, &members));
    }
    documents
}
