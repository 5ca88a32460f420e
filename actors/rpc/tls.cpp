#include "actors/rpc/tls.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <set>

#include "actors/controller/services.h"
#include "actors/rpc/openssl.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/random_hex.h"
#include "core/base/text.h"

namespace praetor {

namespace fs = std::filesystem;
using rpc::Bio;
using rpc::Cert;
using rpc::Key;
using rpc::memory_bio;
using rpc::openssl_error;

namespace {

constexpr size_t kMostBytes = 1 << 20;

bool is_address(const std::string& host) {
  unsigned char bytes[16];
  return ::inet_pton(AF_INET, host.c_str(), bytes) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), bytes) == 1;
}

std::string without_brackets(const std::string& host) {
  const bool has = host.size() > 2 && host.front() == '[' && host.back() == ']';
  return has ? host.substr(1, host.size() - 2) : host;
}

std::string text_of(const ASN1_TIME* time) {
  std::tm parts{};
  ::ASN1_TIME_to_tm(time, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text;
}

/// All certificates of a PEM text, in its order.
std::vector<Cert> certificates_of(const std::string& pem) {
  std::vector<Cert> out;
  const Bio bio = memory_bio(pem);
  while (X509* one = ::PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr))
    out.emplace_back(one);
  ::ERR_clear_error();  // the end of the text is an error to OpenSSL
  return out;
}

Key key_of(const std::string& pem) {
  // A key under a password is no key to us: nobody is there to be asked for it.
  const auto no_password = [](char*, int, int, void*) { return -1; };
  const Bio bio = memory_bio(pem);
  Key key(::PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
  ::ERR_clear_error();
  return key;
}

/// Gathers what is wrong with three files.
class Examiner {
 public:
  /// `both_ends`: the certificate is to be for a server and a client (the run's own member
  /// certificates are for clients alone).
  Examiner(const TlsFiles& files, std::string host, bool both_ends)
      : files_(files), host_(std::move(host)), both_ends_(both_ends) {}

  std::vector<TlsFault> faults;
  TlsIdentity identity;

  void examine() {
    read("certificate", files_.certificate, identity.certificate);
    read("key", files_.key, identity.key);
    read("ca", files_.ca, identity.ca);
    if (!identity.key.empty()) check_eyes();
    const auto chain = certificates_of(identity.certificate);
    const auto authorities = certificates_of(identity.ca);
    const Key key = key_of(identity.key);
    need("certificate", files_.certificate, identity.certificate, !chain.empty(), "certificate");
    need("ca", files_.ca, identity.ca, !authorities.empty(), "certificate of an authority");
    need("key", files_.key, identity.key, key != nullptr, "private key without a password");
    for (const Cert& one : authorities) check_dates("ca", files_.ca, *one);
    if (chain.empty()) return;
    check_dates("certificate", files_.certificate, *chain.front());
    if (key && ::X509_check_private_key(chain.front().get(), key.get()) != 1) {
      ::ERR_clear_error();
      fault("key",
            kExitBadData,
            files_.key.string(),
            ": is not the key of ",
            files_.certificate.string());
    }
    if (!authorities.empty()) check_chain(chain, authorities);
    check_host(*chain.front());
  }

 private:
  template <typename... Args>
  void fault(const char* file, int status, const Args&... args) {
    faults.push_back({file, str(args...), status});
  }

  void read(const char* name, const fs::path& file, std::string& into) {
    try {
      into = read_file(file, kMostBytes);
      if (into.empty()) fault(name, kExitBadData, file.string(), ": is empty");
    } catch (const Error& failure) {
      fault(name, failure.exit_status(), failure.what());
    }
  }

  void need(const char* name,
            const fs::path& file,
            const std::string& text,
            bool found,
            const char* wanted) {
    if (!found && !text.empty())
      fault(name,
            kExitBadData,
            file.string(),
            ": holds no ",
            wanted,
            " in PEM form (\"-----BEGIN ...\")");
  }

  void check_eyes() {
    struct stat info {};
    if (::stat(files_.key.c_str(), &info) != 0 || (info.st_mode & 077) == 0) return;
    fault("key",
          kExitRefused,
          files_.key.string(),
          ": others may read or write it; mend it by: chmod 600 ",
          files_.key.string());
  }

  void check_dates(const char* name, const fs::path& file, const X509& certificate) {
    const ASN1_TIME* from = ::X509_get0_notBefore(&certificate);
    const ASN1_TIME* until = ::X509_get0_notAfter(&certificate);
    if (::X509_cmp_current_time(until) < 0) {
      fault(name,
            kExitRefused,
            file.string(),
            ": expired on ",
            text_of(until),
            "; one that is valid now is wanted");
    } else if (::X509_cmp_current_time(from) > 0) {
      fault(name,
            kExitRefused,
            file.string(),
            ": is not valid before ",
            text_of(from),
            "; one that is valid now is wanted (is this host's clock right?)");
    }
  }

  /// Every process of a run is both: it calls, and it is called.
  void check_chain(const std::vector<Cert>& chain, const std::vector<Cert>& authorities) {
    const rpc::Store store(::X509_STORE_new());
    for (const Cert& one : authorities) ::X509_STORE_add_cert(store.get(), one.get());
    STACK_OF(X509)* between = sk_X509_new_null();
    for (size_t i = 1; i < chain.size(); ++i) sk_X509_push(between, chain[i].get());
    const rpc::StoreContext context(::X509_STORE_CTX_new());
    ::X509_STORE_CTX_init(context.get(), store.get(), chain.front().get(), between);
    ::X509_VERIFY_PARAM_set_flags(::X509_STORE_CTX_get0_param(context.get()),
                                  X509_V_FLAG_NO_CHECK_TIME);  // said by check_dates
    const bool good = ::X509_verify_cert(context.get()) == 1;
    const int why = ::X509_STORE_CTX_get_error(context.get());
    sk_X509_free(between);
    ::ERR_clear_error();
    if (!good) {
      fault("certificate",
            kExitRefused,
            files_.certificate.string(),
            ": is not of the authority in ",
            files_.ca.string(),
            " (",
            ::X509_verify_cert_error_string(why),
            ")");
    }
    for (const int purpose : {X509_PURPOSE_SSL_SERVER, X509_PURPOSE_SSL_CLIENT}) {
      if (both_ends_ && ::X509_check_purpose(chain.front().get(), purpose, 0) != 1) {
        fault("certificate",
              kExitRefused,
              files_.certificate.string(),
              ": is not meant for TLS ",
              purpose == X509_PURPOSE_SSL_SERVER ? "servers" : "clients",
              "; a run's processes are both (extended key usage serverAuth and clientAuth)");
      }
    }
  }

  void check_host(X509& certificate) {
    if (host_.empty()) return;
    const std::string host = without_brackets(host_);
    const bool fits =
        is_address(host)
            ? ::X509_check_ip_asc(&certificate, host.c_str(), 0) == 1
            : ::X509_check_host(&certificate, host.data(), host.size(), 0, nullptr) == 1;
    if (!fits) {
      fault("certificate",
            kExitRefused,
            files_.certificate.string(),
            ": is not valid for ",
            printable(host),
            ", under which the others reach this host (subject alternative name)");
    }
  }

  const TlsFiles& files_;
  const std::string host_;
  const bool both_ends_;
};

[[noreturn]] void throw_fault(const TlsFault& fault) {
  if (fault.exit_status == kExitMissingInput) throw MissingInput(fault.message);
  if (fault.exit_status == kExitRefused) throw RefusedError(fault.message);
  if (fault.exit_status == kExitIo) throw IoError(fault.message);
  throw DataError(fault.message);
}

// ---- certificates of our own
// ---------------------------------------------------------------------

enum class Kind { kAuthority, kMember, kServer };

void need(bool worked, const char* what) {
  if (!worked) throw InternalError("TLS: cannot make ", what, ": ", openssl_error());
}

Key new_key() {
  Key key(::EVP_EC_gen("P-256"));
  need(key != nullptr, "a key");
  return key;
}

void extend(X509& to, X509& issuer, int what, const std::string& value) {
  X509V3_CTX context;
  ::X509V3_set_ctx(&context, &issuer, &to, nullptr, nullptr, 0);
  X509_EXTENSION* extension = ::X509V3_EXT_conf_nid(nullptr, &context, what, value.c_str());
  need(extension != nullptr, value.c_str());
  ::X509_add_ext(&to, extension, -1);
  ::X509_EXTENSION_free(extension);
}

/// "IP:10.0.0.7,DNS:node-3". What is neither would break the certificate and is left out.
std::string alternative_names(const std::vector<std::string>& hosts) {
  std::string out;
  std::set<std::string> said;
  for (const std::string& given : hosts) {
    const std::string host = without_brackets(given);
    const bool plain = host.find_first_not_of(
                           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                           "0123456789.-_:") == std::string::npos;
    if (host.empty() || !plain || !said.insert(host).second) continue;
    if (!out.empty()) out += ",";
    out += (is_address(host) ? "IP:" : "DNS:") + host;
  }
  return out;
}

/// A certificate for `key`, signed by the authority; an authority signs its own. `until` may lie in
/// the past.
Cert issue(Kind kind,
           EVP_PKEY& key,
           X509* issuer,
           EVP_PKEY& issuer_key,
           std::time_t until,
           const std::vector<std::string>& hosts) {
  Cert out(::X509_new());
  ::X509_set_version(out.get(), X509_VERSION_3);
  BIGNUM* number = nullptr;
  ::BN_hex2bn(&number, str("1", random_hex(15)).c_str());  // neither zero nor negative
  ::BN_to_ASN1_INTEGER(number, ::X509_get_serialNumber(out.get()));
  ::BN_free(number);
  // Clocks of hosts differ a little.
  const std::time_t from = std::min(until, std::time(nullptr)) - 3600;
  ::ASN1_TIME_set(::X509_getm_notBefore(out.get()), from);
  ::ASN1_TIME_set(::X509_getm_notAfter(out.get()), until);
  const char* name = kind == Kind::kAuthority ? "praetor run"
                     : kind == Kind::kServer  ? "praetor server"
                                              : "praetor member";
  ::X509_NAME_add_entry_by_txt(::X509_get_subject_name(out.get()),
                               "CN",
                               MBSTRING_UTF8,
                               reinterpret_cast<const unsigned char*>(name),
                               -1,
                               -1,
                               0);
  ::X509_set_issuer_name(out.get(), ::X509_get_subject_name(issuer ? issuer : out.get()));
  ::X509_set_pubkey(out.get(), &key);
  X509& above = issuer ? *issuer : *out;
  if (kind == Kind::kAuthority) {
    extend(*out, above, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
    extend(*out, above, NID_key_usage, "critical,keyCertSign");
  } else {
    extend(*out, above, NID_basic_constraints, "critical,CA:FALSE");
    extend(*out, above, NID_key_usage, "critical,digitalSignature");
    // A worker that is let in must not be able to play the controller.
    extend(*out, above, NID_ext_key_usage, kind == Kind::kServer ? "serverAuth" : "clientAuth");
  }
  if (kind == Kind::kServer) extend(*out, above, NID_subject_alt_name, alternative_names(hosts));
  need(::X509_sign(out.get(), &issuer_key, ::EVP_sha256()) > 0, "a signature");
  return out;
}

std::string pem_of(const Bio& bio) {
  BUF_MEM* text = nullptr;
  BIO_get_mem_ptr(bio.get(), &text);
  return {text->data, text->length};
}

std::string pem_of(X509& certificate) {
  const Bio bio(::BIO_new(::BIO_s_mem()));
  need(::PEM_write_bio_X509(bio.get(), &certificate) == 1, "a certificate");
  return pem_of(bio);
}

std::string pem_of(EVP_PKEY& key) {
  const Bio bio(::BIO_new(::BIO_s_mem()));
  need(::PEM_write_bio_PrivateKey(bio.get(), &key, nullptr, nullptr, 0, nullptr, nullptr) == 1,
       "a key");
  return pem_of(bio);
}

/// Written under another name and renamed, by its owner alone readable from the first byte.
void write_private(const fs::path& file, const std::string& text) {
  const fs::path part = file.string() + ".part";
  ::unlink(part.c_str());
  const int fd = ::open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) throw IoError("cannot make ", part.string(), ": ", std::strerror(errno));
  const bool whole = ::fchmod(fd, 0600) == 0 &&
                     ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                     ::fsync(fd) == 0;
  const int why = errno;
  ::close(fd);
  if (!whole || ::rename(part.c_str(), file.c_str()) != 0) {
    const int reason = whole ? errno : why;
    ::unlink(part.c_str());
    throw IoError("cannot write ", file.string(), ": ", std::strerror(reason));
  }
}

fs::path folder_of(const fs::path& run_dir) {
  return run_dir / "tls";
}

struct Authority {
  Cert certificate;
  Key key;
};

/// @throws as read_identity
Authority read_authority(const fs::path& run_dir) {
  const fs::path folder = folder_of(run_dir);
  TlsFiles files{
      .certificate = folder / "ca.pem", .key = folder / "ca.key", .ca = folder / "ca.pem"};
  Examiner examiner(files, "", false);
  examiner.examine();
  if (!examiner.faults.empty()) throw_fault(examiner.faults.front());
  return {std::move(certificates_of(examiner.identity.certificate).front()),
          key_of(examiner.identity.key)};
}

std::vector<TlsFault> faults_of_member(const TlsFiles& files) {
  Examiner examiner(files, "", false);
  examiner.examine();
  return std::move(examiner.faults);
}

std::time_t end_of(const X509& certificate) {
  std::tm parts{};
  ::ASN1_TIME_to_tm(::X509_get0_notAfter(&certificate), &parts);
  return ::timegm(&parts);
}

}  // namespace

std::vector<TlsFault> faults_of(const TlsFiles& files, const std::string& host) {
  Examiner examiner(files, host, true);
  examiner.examine();
  return std::move(examiner.faults);
}

std::shared_ptr<const TlsIdentity> read_identity(const TlsFiles& files) {
  Examiner examiner(files, "", false);
  examiner.examine();
  if (!examiner.faults.empty()) throw_fault(examiner.faults.front());
  return std::make_shared<const TlsIdentity>(std::move(examiner.identity));
}

TlsFiles run_certificates(const fs::path& run_dir) {
  const fs::path folder = fs::absolute(folder_of(run_dir));
  return {folder / "member.pem", folder / "member.key", folder / "ca.pem"};
}

TlsFiles make_run_certificates(const fs::path& run_dir, std::chrono::hours valid) {
  const fs::path folder = folder_of(run_dir);
  const TlsFiles files = run_certificates(run_dir);
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    throw IoError("cannot make ", folder.string(), ": ", std::strerror(errno));
  if (::chmod(folder.c_str(), 0700) != 0)
    throw IoError("cannot close ", folder.string(), " to others: ", std::strerror(errno));
  const std::time_t now = std::time(nullptr);
  const std::time_t until = now + std::chrono::seconds(valid).count();
  Key authority_key;
  if (fs::exists(folder / "ca.key")) {
    const bool whole =
        fs::exists(files.ca) && fs::exists(files.certificate) && fs::exists(files.key);
    authority_key = key_of(read_file(folder / "ca.key", kMostBytes));
    if (!authority_key) throw DataError((folder / "ca.key").string(), ": holds no private key");
    const auto old = certificates_of(whole ? read_file(files.ca, kMostBytes) : std::string());
    if (!old.empty() && end_of(*old.front()) - now > (until - now) / 3) {
      const auto faults = faults_of_member(files);
      if (faults.empty()) return files;
      // A crash between two of the files leaves some that do not fit each other.
      if (faults.front().exit_status != kExitBadData) throw_fault(faults.front());
    }
  } else {
    authority_key = new_key();
    write_private(folder / "ca.key", pem_of(*authority_key));
  }
  const Cert authority =
      issue(Kind::kAuthority, *authority_key, nullptr, *authority_key, until, {});
  const Key member = new_key();
  const Cert shown = issue(Kind::kMember, *member, authority.get(), *authority_key, until, {});
  // The authority comes last: it says that the others are whole.
  write_private(files.key, pem_of(*member));
  write_private(files.certificate, pem_of(*shown));
  write_private(files.ca, pem_of(*authority));
  fsync_directory(folder);
  return files;
}

std::shared_ptr<const TlsIdentity> issue_server_identity(const fs::path& run_dir,
                                                         const std::vector<std::string>& hosts) {
  const Authority authority = read_authority(run_dir);
  char name[256] = {};
  ::gethostname(name, sizeof(name) - 1);
  std::vector<std::string> all = hosts;
  for (const char* one : {static_cast<const char*>(name), "localhost", "127.0.0.1", "::1"})
    all.emplace_back(one);
  const Key key = new_key();
  const Cert shown = issue(Kind::kServer,
                           *key,
                           authority.certificate.get(),
                           *authority.key,
                           end_of(*authority.certificate),
                           all);
  TlsIdentity out;
  out.certificate = pem_of(*shown);
  out.key = pem_of(*key);
  out.ca = pem_of(*authority.certificate);
  return std::make_shared<const TlsIdentity>(std::move(out));
}

bool is_loopback(const std::string& host) {
  const std::string bare = without_brackets(host);
  return bare == "localhost" || bare == "::1" || (bare.starts_with("127.") && is_address(bare));
}

}  // namespace praetor
