//! system.processes as a client of this server should see it: the engine's rows under the server's query ids,
//! and the queries whose bodies are still arriving, which the engine does not know yet. Writes SQL and runs
//! none.

use std::ops::Range;

use super::engine::Parameter;
use super::running::{Query, Running};

/// Replaces `system.processes`. A query's mark is `<number>:<query_id>` in a setting. The second SELECT
/// adds a row for each query whose body is still arriving: the row of the query that reads this, with another id.
const VISIBLE_PROCESSES: &str = "(SELECT * EXCEPT embedded_mark REPLACE (\
     if(embedded_mark = '', query_id, substring(embedded_mark, position(embedded_mark, ':') + 1)) AS query_id, \
     if(embedded_mark = '', initial_query_id, substring(embedded_mark, position(embedded_mark, ':') + 1)) AS initial_query_id, \
     mapFilter((name, value) -> name != 'promql_table', Settings) AS Settings) \
     FROM (SELECT *, Settings['promql_table'] AS embedded_mark FROM system.processes) \
     UNION ALL \
     SELECT * EXCEPT embedded_mark REPLACE (\
     embedded_id AS query_id, embedded_id AS initial_query_id, embedded_seconds AS elapsed, embedded_text AS query, \
     toUInt64(0) AS read_rows, toUInt64(0) AS read_bytes, toUInt64(0) AS written_rows, toUInt64(0) AS written_bytes, \
     toInt64(0) AS memory_usage, toInt64(0) AS peak_memory_usage, \
     mapFilter((name, value) -> 0, ProfileEvents) AS ProfileEvents, mapFilter((name, value) -> 0, Settings) AS Settings) \
     FROM (SELECT *, Settings['promql_table'] AS embedded_mark FROM system.processes \
     WHERE embedded_mark = {embedded_own:String}) \
     ARRAY JOIN {embedded_ids:Array(String)} AS embedded_id, {embedded_elapsed:Array(Float64)} AS embedded_seconds, \
     {embedded_texts:Array(String)} AS embedded_text)";

/// The parameters of the SQL that this module writes.
pub fn parameters(running: &Running, own: &Query) -> Vec<Parameter> {
    let arriving: Vec<_> = running.all().into_iter().filter(|query| !query.is_in_engine()).collect();
    let ids: Vec<&str> = arriving.iter().map(|query| query.id.as_str()).collect();
    let texts: Vec<String> = arriving.iter().map(|query| query.text()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let elapsed: Vec<String> =
        arriving.iter().map(|query| query.elapsed().as_secs_f64().to_string()).collect();
    let parameter = |name: &str, value: Vec<u8>| Parameter { name: name.to_owned(), value };
    vec![
        parameter("embedded_ids", string_array(&ids)),
        parameter("embedded_texts", string_array(&texts)),
        parameter("embedded_elapsed", format!("[{}]", elapsed.join(",")).into_bytes()),
        parameter("embedded_own", escaped(&own.marker).into_bytes()),
    ]
}

/// Replaces each of `places` in `sql`.
pub fn replace_processes(sql: &[u8], places: &[Range<usize>]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(sql.len() + places.len() * VISIBLE_PROCESSES.len());
    let mut done = 0;
    for place in places {
        shown.extend_from_slice(&sql[done..place.start]);
        shown.extend_from_slice(VISIBLE_PROCESSES.as_bytes());
        done = place.end;
    }
    shown.extend_from_slice(&sql[done..]);
    shown
}

/// Selects the ids of the queries for which `condition` is true.
pub fn select_matching(condition: &[u8]) -> Vec<u8> {
    // The line end closes a comment at the end of the condition.
    [b"SELECT query_id FROM ", VISIBLE_PROCESSES.as_bytes(), b" WHERE ", condition, b"\n"].concat()
}

/// Selects KILL QUERY's answer for `embedded_victims`, with `embedded_status`.
pub fn select_victims() -> Vec<u8> {
    format!(
        "SELECT {{embedded_status:String}} AS kill_status, query_id, user, query FROM {VISIBLE_PROCESSES} \
         WHERE has({{embedded_victims:Array(String)}}, query_id)"
    )
    .into_bytes()
}

/// The value of an Array(String) parameter.
pub fn string_array(texts: &[&str]) -> Vec<u8> {
    let quoted: Vec<String> = texts.iter().map(|text| format!("'{}'", escaped(text))).collect();
    format!("[{}]", quoted.join(",")).into_bytes()
}

/// Escapes a String parameter, alone or in an array, as the engine parses it.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '\'' => escaped.push_str("\\'"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '\0' => escaped.push_str("\\0"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_escaped() {
        assert_eq!(string_array(&["a", "b'c\\", "d\te\n"]), br"['a','b\'c\\','d\te\n']");
        assert_eq!(string_array(&[]), b"[]");
    }

    #[test]
    fn every_place_is_replaced() {
        let shown =
            replace_processes(b"SELECT 1 FROM system.processes a, system.processes b", &[14..30, 34..50]);
        assert_eq!(
            String::from_utf8_lossy(&shown),
            format!("SELECT 1 FROM {VISIBLE_PROCESSES} a, {VISIBLE_PROCESSES} b")
        );
    }
}
