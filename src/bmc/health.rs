//! Whether a machine is well, as its BMC measures it: the gate before work begins on it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Bmc, BmcError, links};

/// Chassis of one system that are looked at.
const CHASSIS_MAX: usize = 8;

/// What a BMC measures and judges.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Whether nothing is critical.
    pub fit: bool,
    /// What is not well: the part, `Warning` or `Critical`, and why as far as the BMC says.
    pub unwell: Vec<Unwell>,
    /// What it measures.
    pub readings: Vec<Reading>,
}

/// A part that is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwell {
    /// The part.
    pub part: String,
    /// `Warning` or `Critical`.
    pub health: String,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// What is measured.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Its unit, as the BMC writes it.
    pub unit: String,
}

impl Health {
    /// Notes a part's status, its own before that of what it holds.
    fn note(&mut self, part: &str, document: &Value) {
        let status = &document["Status"];
        let absent = matches!(status["State"].as_str(), Some("Absent" | "Disabled"));
        let health = status["Health"].as_str().or_else(|| status["HealthRollup"].as_str());
        if let (false, Some(health @ ("Warning" | "Critical"))) = (absent, health) {
            self.unwell.push(Unwell { part: part.to_owned(), health: health.to_owned() });
        }
    }

    fn read(&mut self, document: &Value, value: &str, unit: &str) {
        let name = name_of(document);
        if let Some(value) = document[value].as_f64() {
            let unit = document["ReadingUnits"].as_str().unwrap_or(unit).to_owned();
            self.readings.push(Reading { name, value, unit });
        }
    }

    /// The older documents, whose lists stand in them whole.
    fn lists(&mut self, document: &Value) {
        let kinds = [
            ("Temperatures", "ReadingCelsius", "Cel"),
            ("Fans", "Reading", "RPM"),
            ("PowerSupplies", "LastPowerOutputWatts", "W"),
            ("Voltages", "ReadingVolts", "V"),
            ("PowerControl", "PowerConsumedWatts", "W"),
        ];
        for (list, value, unit) in kinds {
            for part in document[list].as_array().map(Vec::as_slice).unwrap_or_default() {
                self.note(&name_of(part), part);
                self.read(part, value, unit);
            }
        }
    }
}

fn name_of(document: &Value) -> String {
    ["Name", "MemberId", "Id"].iter().find_map(|key| document[*key].as_str()).unwrap_or("unnamed").trim().to_owned()
}

impl Bmc {
    /// What the BMC measures of the machine, and what it finds unwell. Parts that cannot be read are left out: a gate
    /// must not close because a fan does not answer.
    ///
    /// # Errors
    /// Only when the system itself cannot be read.
    pub async fn health(&self) -> Result<Health, BmcError> {
        let system = self.system().await?;
        let mut health = Health::default();
        health.note("system", &system);
        for link in links(&system["Links"]["Chassis"]).into_iter().take(CHASSIS_MAX) {
            let Ok(chassis) = self.client.get::<Value>(&link).await else { continue };
            health.note(&format!("chassis {}", name_of(&chassis)), &chassis);
            let before = health.readings.len();
            for key in ["Thermal", "Power"] {
                if let Some(link) = chassis[key]["@odata.id"].as_str()
                    && let Ok(document) = self.client.get::<Value>(link).await
                {
                    health.lists(&document);
                }
            }
            // Newer BMCs, and those whose fans are sensors.
            if health.readings.len() == before
                && let Some(list) = chassis["Sensors"]["@odata.id"].as_str()
            {
                for link in self.client.members(list).await.unwrap_or_default() {
                    let Ok(sensor) = self.client.get::<Value>(&link).await else { continue };
                    health.note(&name_of(&sensor), &sensor);
                    health.read(&sensor, "Reading", "");
                }
            }
        }
        health.fit = health.unwell.iter().all(|part| part.health != "Critical");
        Ok(health)
    }
}
