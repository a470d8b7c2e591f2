//! A safe interface to the engine: libchdb's C functions, loaded at run time. Knows SQL text, formats and
//! bytes; knows nothing of HTTP.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

use libloading::Library;
use thiserror::Error;

use super::confine::Confinement;
use super::exception::{Exception, code};
use super::spool;

/// The engine's configuration and what SQL may do; the engine reads no other configuration.
const CONFIG: &str = include_str!("rules/config.xml");
const USERS: &str = include_str!("rules/users.xml");
/// The one grant that is safe only if the kernel confines the process.
const FILE_GRANT: &str = "<query>GRANT FILE ON *.*</query>";

/// The engine with one open data path. It stays open while any [`Connection`] is open. When the last one
/// closes, the engine writes everything to disk and shuts down.
pub struct Engine {
    api: Api,
    arguments: Vec<CString>,
    /// The files that the arguments name.
    _rules: [File; 2],
    /// The engine starts with its first connection and stops with its last, so connections are opened and
    /// closed one at a time.
    opening_or_closing: Mutex<()>,
    /// Keeps the engine running between queries.
    kept: Mutex<Option<RawConnection>>,
}

/// An open connection on which no queries run.
struct RawConnection(NonNull<Handle>);

// SAFETY: as for `Connection`.
unsafe impl Send for RawConnection {}

/// Why the engine could not be opened.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The file does not exist, is no library for this platform, or belongs to another version.
    #[error("cannot load the ClickHouse engine from {path}: {source}")]
    Load { path: String, source: libloading::Error },
    /// The path contains a zero byte, which C cannot pass.
    #[error("the data path {path:?} contains a zero byte")]
    Path { path: String },
    /// No memory or no descriptor is left for the engine's rules.
    #[error("cannot keep the engine's rules in memory: {0}")]
    Rules(io::Error),
    /// The engine gives no reason; it prints one on standard error.
    #[error("the ClickHouse engine refused to open {path} (its reason, if it gave one, is printed above)")]
    Open { path: String },
}

impl Engine {
    /// Loads `library` and opens the data at `path`, which exists. It loads all tables, so it takes a tenth
    /// of a second, or longer with many data parts. Returns the engine and its first connection. Without
    /// confinement SQL cannot read files as tables.
    pub fn open(
        library: &Path,
        path: &Path,
        confinement: Confinement,
    ) -> Result<(Arc<Engine>, Connection), EngineError> {
        let api = Api::load(library)
            .map_err(|source| EngineError::Load { path: library.display().to_string(), source })?;
        let path_argument = [b"--path=", path.as_os_str().as_bytes()].concat();
        let path_argument = CString::new(path_argument)
            .map_err(|_| EngineError::Path { path: path.display().to_string() })?;
        let users = match confinement {
            Confinement::Kept => USERS.to_owned(),
            Confinement::Unavailable => USERS.replace(FILE_GRANT, ""),
        };
        let (config, users) = (rules(CONFIG)?, rules(&users)?);
        let mut arguments = vec![c"clickhouse".to_owned(), path_argument];
        for (name, file) in [("config-file", &config), ("users_config", &users)] {
            let argument = CString::new(format!("--{name}={}", spool::path_of(file)));
            arguments.push(argument.expect("neither part contains a zero byte"));
        }
        // SAFETY: the signature is the header's; no engine call has been made before.
        unsafe { (api.set_signal_handlers_enabled)(false) };
        let _rules = [config, users];
        let engine = Arc::new(Engine {
            api,
            arguments,
            _rules,
            opening_or_closing: Mutex::new(()),
            kept: Mutex::new(None),
        });
        match engine.connect() {
            Ok(connection) => Ok((engine, connection)),
            Err(_) => Err(EngineError::Open { path: path.display().to_string() }),
        }
    }

    /// Keeps `connection` open until [`Engine::release`], so that the engine outlives its other connections.
    pub fn keep(&self, connection: Connection) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Not stored as a Connection, which has a reference to the engine: each would keep the other alive.
        *kept = Some(connection.into_raw());
    }

    /// Closes the kept connection. The engine shuts down with the last one.
    pub fn release(&self) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(RawConnection(opened)) = kept {
            self.close(opened);
        }
    }

    fn close(&self, opened: NonNull<Handle>) {
        let _one_at_a_time = self.opening_or_closing.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: an open connection is owned by one `Connection` or `RawConnection`, which hands it
        // over here at its end; no reply stream borrows it any more.
        unsafe { (self.api.close)(opened.as_ptr()) };
    }

    /// Opens a connection with its own settings, temporary tables and current database; 0.2 ms. Queries on
    /// different connections run in parallel.
    pub fn connect(self: &Arc<Engine>) -> Result<Connection, Exception> {
        let mut argv: Vec<*mut c_char> = self.arguments.iter().map(|text| text.as_ptr().cast_mut()).collect();
        let opened = {
            let _one_at_a_time = self.opening_or_closing.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: argv has argv.len() zero-terminated strings, which outlive the call;
            // the engine copies them.
            unsafe { (self.api.connect)(argv.len() as c_int, argv.as_mut_ptr()) }
        };
        match NonNull::new(opened) {
            Some(opened) => Ok(Connection { engine: Arc::clone(self), opened }),
            None => {
                Err(Exception::new(code::LOGICAL_ERROR, "the embedded engine refused to open a connection"))
            }
        }
    }
}

/// A file in memory with `text` as its content.
fn rules(text: &str) -> Result<File, EngineError> {
    let mut file = spool::anonymous_file().map_err(EngineError::Rules)?;
    file.write_all(text.as_bytes()).map_err(EngineError::Rules)?;
    Ok(file)
}

/// A value for `{name:Type}` in a query, in the engine's text form of the type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub value: Vec<u8>,
}

/// One connection; it runs one query at a time.
pub struct Connection {
    engine: Arc<Engine>,
    opened: NonNull<Handle>,
}

// SAFETY: the engine binds no thread to a connection: each call attaches the calling thread for its
// duration. `Connection` is not `Sync`, so no two threads call at once.
unsafe impl Send for Connection {}

impl Connection {
    /// Runs `sql` to its end. The reply contains the whole result, in `format` unless the query names another
    /// with FORMAT.
    pub fn run(&mut self, sql: &[u8], format: &str, parameters: &[Parameter]) -> Result<Reply, Exception> {
        let result = self.call(self.engine.api.query, sql, format, parameters);
        self.reply(result)
    }

    /// Starts a query that returns rows. The engine refuses (code 36) a statement that is no SELECT; see
    /// [`Exception::refuses_streaming`].
    pub fn stream(
        &mut self,
        sql: &[u8],
        format: &str,
        parameters: &[Parameter],
    ) -> Result<ReplyStream<'_>, Exception> {
        let result = self.call(self.engine.api.stream_query, sql, format, parameters);
        // The reply's drop frees the handle when the start already failed.
        let started = self.reply(result)?;
        let stream = started.into_raw();
        Ok(ReplyStream { connection: self, stream, ended: false })
    }

    fn call(
        &mut self,
        function: QueryFn,
        sql: &[u8],
        format: &str,
        parameters: &[Parameter],
    ) -> *mut RawResult {
        let names: Vec<*const c_char> = parameters.iter().map(|it| it.name.as_ptr().cast()).collect();
        let name_lengths: Vec<usize> = parameters.iter().map(|it| it.name.len()).collect();
        let values: Vec<*const c_char> = parameters.iter().map(|it| it.value.as_ptr().cast()).collect();
        let value_lengths: Vec<usize> = parameters.iter().map(|it| it.value.len()).collect();
        // SAFETY: each pointer goes with its length in bytes and outlives the call, which copies what
        // it keeps; the four arrays have `parameters.len()` entries; the handle is open.
        unsafe {
            function(
                self.handle(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                parameters.len(),
            )
        }
    }

    fn into_raw(self) -> RawConnection {
        let opened = RawConnection(self.opened);
        let Connection { engine, .. } = &*ManuallyDrop::new(self);
        // SAFETY: `self` will not be dropped, so its share of the engine is taken out once, here.
        drop(unsafe { ptr::read(engine) });
        opened
    }

    fn handle(&self) -> Handle {
        // SAFETY: `opened` came from connect and is closed only by drop.
        unsafe { *self.opened.as_ptr() }
    }

    /// Takes ownership of a result; an exception if the result contains one.
    fn reply(&self, result: *mut RawResult) -> Result<Reply, Exception> {
        let Some(result) = NonNull::new(result) else {
            return Err(Exception::new(code::LOGICAL_ERROR, "the embedded engine gave no answer"));
        };
        let reply = Reply { engine: Arc::clone(&self.engine), result };
        // SAFETY: the result is alive until `reply` is dropped.
        let error = unsafe { (self.engine.api.result_error)(result.as_ptr()) };
        if error.is_null() {
            return Ok(reply);
        }
        // SAFETY: a non-null error is a zero-terminated string that lives as long as the result.
        let text = unsafe { CStr::from_ptr(error) }.to_string_lossy();
        Err(Exception::from_engine(&text))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.engine.close(self.opened);
    }
}

/// A result, or one chunk of a streamed result. Its bytes stay in the engine's memory.
pub struct Reply {
    engine: Arc<Engine>,
    result: NonNull<RawResult>,
}

// SAFETY: a finished result belongs to no thread; it is only read, and freed once.
unsafe impl Send for Reply {}
// SAFETY: shared access only reads memory that nobody writes.
unsafe impl Sync for Reply {}

impl Reply {
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the result is alive; buffer and length belong together and do not change.
        unsafe {
            let data = (self.engine.api.result_buffer)(self.result.as_ptr());
            let length = (self.engine.api.result_length)(self.result.as_ptr());
            if data.is_null() || length == 0 {
                return &[];
            }
            slice::from_raw_parts(data.cast::<u8>(), length)
        }
    }

    pub fn progress(&self) -> Progress {
        let count = |function: CountFn| {
            // SAFETY: the result is alive, and each of these functions reads a number from it.
            unsafe { function(self.result.as_ptr()) }
        };
        Progress {
            read_rows: count(self.engine.api.storage_rows_read),
            read_bytes: count(self.engine.api.storage_bytes_read),
            written_rows: count(self.engine.api.rows_written),
            written_bytes: count(self.engine.api.bytes_written),
            result_rows: count(self.engine.api.rows_read),
            result_bytes: count(self.engine.api.bytes_read),
        }
    }

    fn into_raw(self) -> NonNull<RawResult> {
        let result = self.result;
        let Reply { engine, .. } = &*ManuallyDrop::new(self);
        // SAFETY: `self` will not be dropped, so its share of the engine is taken out once, here.
        drop(unsafe { ptr::read(engine) });
        result
    }
}

impl AsRef<[u8]> for Reply {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // SAFETY: owned by this reply alone, freed once.
        unsafe { (self.engine.api.destroy)(self.result.as_ptr()) };
    }
}

/// What a query has read, written and returned so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub read_rows: u64,
    pub read_bytes: u64,
    pub written_rows: u64,
    pub written_bytes: u64,
    pub result_rows: u64,
    pub result_bytes: u64,
}

impl std::ops::AddAssign for Progress {
    fn add_assign(&mut self, more: Progress) {
        self.read_rows += more.read_rows;
        self.read_bytes += more.read_bytes;
        self.written_rows += more.written_rows;
        self.written_bytes += more.written_bytes;
        self.result_rows += more.result_rows;
        self.result_bytes += more.result_bytes;
    }
}

/// A query's result in chunks. Dropping it before its end cancels the query.
pub struct ReplyStream<'connection> {
    connection: &'connection mut Connection,
    stream: NonNull<RawResult>,
    ended: bool,
}

impl ReplyStream<'_> {
    /// The next chunk, or `None` after the last. Blocks while the engine computes it.
    pub fn next(&mut self) -> Result<Option<Reply>, Exception> {
        if self.ended {
            return Ok(None);
        }
        // SAFETY: connection and stream are alive and belong together; `&mut self` serializes the calls.
        let result = unsafe {
            (self.connection.engine.api.stream_fetch)(self.connection.handle(), self.stream.as_ptr())
        };
        let chunk = self.connection.reply(result).inspect_err(|_| self.ended = true)?;
        // The engine ends a stream with the first chunk that counts no rows. That chunk can contain bytes: a
        // header, a footer, totals.
        if chunk.progress().result_rows == 0 {
            self.ended = true;
        }
        if chunk.bytes().is_empty() {
            return Ok(None);
        }
        Ok(Some(chunk))
    }
}

impl Drop for ReplyStream<'_> {
    fn drop(&mut self) {
        let api = &self.connection.engine.api;
        // SAFETY: both are alive; the stream is cancelled only while the engine still runs it, and its
        // handle is freed once, here.
        unsafe {
            if !self.ended {
                (api.stream_cancel)(self.connection.handle(), self.stream.as_ptr());
            }
            (api.destroy)(self.stream.as_ptr());
        }
    }
}

/// An open connection, as the engine sees it.
type Handle = *mut c_void;
/// A result, as the engine sees it.
type RawResult = c_void;

type QueryFn = unsafe extern "C" fn(
    Handle,
    *const c_char,
    usize,
    *const c_char,
    usize,
    *const *const c_char,
    *const usize,
    *const *const c_char,
    *const usize,
    usize,
) -> *mut RawResult;
type CountFn = unsafe extern "C" fn(*mut RawResult) -> u64;

/// The functions of chdb.h that this package calls.
struct Api {
    connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut Handle,
    close: unsafe extern "C" fn(*mut Handle),
    query: QueryFn,
    stream_query: QueryFn,
    stream_fetch: unsafe extern "C" fn(Handle, *mut RawResult) -> *mut RawResult,
    stream_cancel: unsafe extern "C" fn(Handle, *mut RawResult),
    destroy: unsafe extern "C" fn(*mut RawResult),
    result_buffer: unsafe extern "C" fn(*mut RawResult) -> *const c_char,
    result_length: unsafe extern "C" fn(*mut RawResult) -> usize,
    result_error: unsafe extern "C" fn(*mut RawResult) -> *const c_char,
    rows_read: CountFn,
    bytes_read: CountFn,
    storage_rows_read: CountFn,
    storage_bytes_read: CountFn,
    rows_written: CountFn,
    bytes_written: CountFn,
    set_signal_handlers_enabled: unsafe extern "C" fn(bool),
}

impl Api {
    fn load(path: &Path) -> Result<Api, libloading::Error> {
        // SAFETY: the engine's initializers run; it is the pinned, checked library or the one that the
        // operator named.
        let library = unsafe { Library::new(path)? };
        // Never unloaded: the engine's background threads outlive any connection.
        let library: &'static Library = Box::leak(Box::new(library));
        /// The function called `name`, as the type of the field that it is stored in.
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field's type is the signature that chdb.h gives this name.
                unsafe { *library.get($name)? }
            };
        }
        Ok(Api {
            connect: function!(b"chdb_connect\0"),
            close: function!(b"chdb_close_conn\0"),
            query: function!(b"chdb_query_with_params_n\0"),
            stream_query: function!(b"chdb_stream_query_with_params_n\0"),
            stream_fetch: function!(b"chdb_stream_fetch_result\0"),
            stream_cancel: function!(b"chdb_stream_cancel_query\0"),
            destroy: function!(b"chdb_destroy_query_result\0"),
            result_buffer: function!(b"chdb_result_buffer\0"),
            result_length: function!(b"chdb_result_length\0"),
            result_error: function!(b"chdb_result_error\0"),
            rows_read: function!(b"chdb_result_rows_read\0"),
            bytes_read: function!(b"chdb_result_bytes_read\0"),
            storage_rows_read: function!(b"chdb_result_storage_rows_read\0"),
            storage_bytes_read: function!(b"chdb_result_storage_bytes_read\0"),
            rows_written: function!(b"chdb_result_rows_written\0"),
            bytes_written: function!(b"chdb_result_bytes_written\0"),
            set_signal_handlers_enabled: function!(b"chdb_set_signal_handlers_enabled\0"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grant_of_files_can_be_removed() {
        assert_eq!(USERS.matches(FILE_GRANT).count(), 1);
        assert_eq!(USERS.matches("FILE").count(), 1);
    }
}
