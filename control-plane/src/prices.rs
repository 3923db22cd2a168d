//! Prices as they are kept, and what consultations cost; the arithmetic is in [`crate::billing`].

use crate::billing::Money;
use crate::consultation::Consultation;
use crate::control::{ChangeError, Control};
use crate::store::{Bill, DoctorPrice};

impl Control {
    /// What a consultation cost, as fixed at its end; none = there was no price, or it is not over.
    pub(crate) async fn amount_charged(
        &self,
        consultation: &Consultation,
    ) -> Result<Option<Money>, ChangeError> {
        Ok(self.bill(consultation).await?.and_then(|bill| bill.amount))
    }

    /// What was fixed at the end; none while it is not over.
    pub(crate) async fn bill(
        &self,
        consultation: &Consultation,
    ) -> Result<Option<Bill>, ChangeError> {
        // Opened again: what its first end fixed does not count any more.
        if !consultation.status.is_over() {
            return Ok(None);
        }
        self.within(self.db.bill(&consultation.clinic, consultation.id)).await
    }

    /// A doctor's prices, one for each mode that has one.
    pub(crate) async fn prices(
        &self,
        clinic: &str,
        doctor_id: &str,
    ) -> Result<Vec<DoctorPrice>, ChangeError> {
        self.within(self.db.prices(clinic, doctor_id)).await
    }

    /// Keeps a doctor's price for one mode. Consultations that are over cost what they did.
    pub(crate) async fn put_price(
        &self,
        clinic: &str,
        price: &DoctorPrice,
        by: &str,
    ) -> Result<DoctorPrice, ChangeError> {
        self.within(self.db.put_price(clinic, price, by)).await
    }
}
