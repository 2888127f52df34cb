//! PostgreSQL's protocol 3 as bytes and messages, without a socket.
//!
//! Rows are never decoded on their way through: a frame is looked at by its tag, and only the few messages that decide
//! something are read. Lengths are checked before they are believed. What the gateway itself says is built here too.
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.

mod backend;
mod frame;
mod frontend;
mod startup;
mod synthesis;

pub use backend::{
    ErrorFields, TransactionStatus, backend_key, command_rows, command_tag, parameter_status, ready_status,
    with_fields, with_formats, with_severity,
};
pub use frame::{Header, MAX_FRAME, WireError, header};
pub use frontend::{
    Bind, Execute, FrontendTag, Parse, Target, TargetKind, bind, client_header, execute, parse, query_text,
    target,
};
pub use startup::{
    CancelKey, Initial, MAX_STARTUP, Protocol, StartupPacket, digest_response, initial, password_text,
    sasl_initial,
};
pub use synthesis::{
    Column, ColumnType, Value, authentication, authentication_ok, backend_key_data, bind_frame,
    close_statement_frame, column_description, command_complete, copy_fail_frame, data_row,
    describe_portal_frame, describe_statement_frame, digest_request, empty_query, error_response,
    execute_frame, flush_frame, negotiate_protocol_version, notice_response, parameter_description,
    parameter_status_frame, parse_frame, query_frame, ready_for_query, row_description, simple,
    startup_message, sync_frame,
};
