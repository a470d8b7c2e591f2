//! Where a partition goes on, from what the table has and what the broker still has.

use anyhow::{Result, bail};

/// The offset to read first, given the last durable one and the broker's ends of the partition (the first
/// offset it still has, and the one it will give next).
///
/// # Errors
/// Where going on would lose messages or mix two topics up. The partition stands still until an operator
/// has decided.
pub fn start_offset(durable: Option<u64>, low: i64, high: i64) -> Result<u64> {
    let (Ok(low), Ok(high)) = (u64::try_from(low), u64::try_from(high)) else {
        bail!("the broker does not know the ends of the partition yet ({low} to {high})");
    };
    let Some(durable) = durable else {
        return Ok(low);
    };
    let next = durable + 1;
    if next < low {
        bail!(
            "the broker's retention has overtaken us: {} messages from {next} to {} are gone before they were durable; \
             raise the topic's retention, and to accept the loss raise `consumer.epoch`",
            low - next,
            low - 1
        );
    }
    if next > high {
        bail!(
            "the table has offsets up to {durable}, the topic only up to {high}: it was made anew or lost its end; \
             if it was made anew, raise `consumer.epoch`"
        );
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_what_is_durable_or_at_the_beginning() {
        assert_eq!(start_offset(None, 0, 0).unwrap(), 0);
        assert_eq!(start_offset(None, 7, 9).unwrap(), 7);
        assert_eq!(start_offset(Some(8), 0, 20).unwrap(), 9);
        assert_eq!(start_offset(Some(8), 9, 9).unwrap(), 9);
    }

    #[test]
    fn a_loss_stops_the_partition() {
        let error = start_offset(Some(8), 12, 20).unwrap_err().to_string();
        assert_eq!(
            error,
            "the broker's retention has overtaken us: 3 messages from 9 to 11 are gone before they were durable; raise \
             the topic's retention, and to accept the loss raise `consumer.epoch`"
        );
    }

    #[test]
    fn a_topic_made_anew_stops_the_partition() {
        let error = start_offset(Some(8), 0, 8).unwrap_err().to_string();
        assert!(error.starts_with("the table has offsets up to 8, the topic only up to 8"), "{error}");
    }
}
