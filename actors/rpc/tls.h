#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace praetor {

/// Mutual TLS of a run's wire: what a process shows and whom it believes, as PEM texts. The key is
/// never logged.
struct TlsIdentity {
  std::string certificate;  ///< its own, then those between it and the authority
  std::string key;
  std::string ca;  ///< authorities whose certificates are believed
};

/// Where an identity lies. No path is ever taken from a message: these come from the job, or from
/// the run directory.
struct TlsFiles {
  std::filesystem::path certificate, key, ca;
};

/// What is wrong with one of the files, and what would be right.
struct TlsFault {
  const char* file;     ///< "certificate", "key" or "ca"
  std::string message;  ///< begins with the path
  int exit_status;      ///< of `praetor`: 66 missing, 65 no such thing, 77 refused
};

/// Everything that can be found: missing, no PEM, a key that others can read or that is not the
/// certificate's, a certificate of another authority, expired, not valid yet, or not for a server
/// and a client both. `host` not empty: it is to be valid for that name or address.
std::vector<TlsFault> faults_of(const TlsFiles& files, const std::string& host = "");

/// @throws MissingInput, DataError, RefusedError (expired, another authority, a key for all eyes)
/// for the first fault
std::shared_ptr<const TlsIdentity> read_identity(const TlsFiles& files);

/// The run's own certificates: an authority of the run and its members' certificate, in RUN_DIR/tls
/// (mode 0700, files 0600; EC P-256). Made where there are none; certificates that are valid for
/// less than a third of `valid` are made anew under the same key of the authority, so that who
/// holds the old ones is believed on. The caller is the only one who does so at a time.
/// @return the members' files @throws IoError; as read_identity for an authority that is there
TlsFiles make_run_certificates(const std::filesystem::path& run_dir,
                               std::chrono::hours valid = std::chrono::hours(24 * 90));
TlsFiles run_certificates(const std::filesystem::path& run_dir);  ///< where they lie

/// A server's identity, issued by the run's authority for `hosts` (names and addresses), this host
/// and loopback; held in memory alone, valid as long as the authority.
/// @throws MissingInput, RefusedError, DataError, IoError
std::shared_ptr<const TlsIdentity> issue_server_identity(const std::filesystem::path& run_dir,
                                                         const std::vector<std::string>& hosts);

/// Why the server at HOST:PORT and a client with `identity` (null: one without TLS) do not come to
/// an understanding, in words; nothing when they do, or when that is not what is wrong (nobody
/// listens, no answer within `time`). Makes a connection of its own.
std::optional<std::string> why_no_handshake(const std::string& address,
                                            const TlsIdentity* identity,
                                            std::chrono::milliseconds time);

/// "127.0.0.1", "localhost", "[::1]": an address that no other machine reaches.
bool is_loopback(const std::string& host);

}  // namespace praetor
