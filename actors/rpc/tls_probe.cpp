#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "actors/rpc/openssl.h"
#include "actors/rpc/tls.h"
#include "core/base/str.h"

namespace praetor {

namespace {

using rpc::openssl_error;
using Clock = std::chrono::steady_clock;

/// Protocols as TLS names them: a length, then so many letters. gRPC's servers insist on it.
constexpr unsigned char kHttp2[] = {2, 'h', '2'};

/// A connection that is given up at a point in time.
class Dial {
 public:
  Dial(const std::string& host, const std::string& port, Clock::time_point end) : end_(end) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (::getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) return;
    for (const addrinfo* one = found; one && fd_ < 0; one = one->ai_next) {
      fd_ = ::socket(one->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      if (fd_ < 0 || connected(*one)) continue;
      ::close(fd_);
      fd_ = -1;
    }
    ::freeaddrinfo(found);
  }
  ~Dial() {
    if (fd_ >= 0) ::close(fd_);
  }
  Dial(const Dial&) = delete;
  Dial& operator=(const Dial&) = delete;

  int fd() const { return fd_; }
  /// @return false when the time is over
  bool wait(short what) const {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end_ - Clock::now()).count();
    pollfd one{fd_, what, 0};
    return left > 0 && ::poll(&one, 1, static_cast<int>(left)) == 1;
  }

 private:
  bool connected(const addrinfo& to) const {
    if (::connect(fd_, to.ai_addr, to.ai_addrlen) == 0) return true;
    if (errno != EINPROGRESS || !wait(POLLOUT)) return false;
    int failure = 0;
    socklen_t size = sizeof(failure);
    return ::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &failure, &size) == 0 && failure == 0;
  }

  const Clock::time_point end_;
  int fd_ = -1;
};

/// OpenSSL writes to a connection that the peer has ended as to any file: the signal for that must
/// not end the process.
class NoPipeSignal {
 public:
  NoPipeSignal() {
    ::sigemptyset(&pipe_);
    ::sigaddset(&pipe_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoPipeSignal() {
    const timespec now{};
    ::sigtimedwait(&pipe_, nullptr, &now);
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoPipeSignal(const NoPipeSignal&) = delete;
  NoPipeSignal& operator=(const NoPipeSignal&) = delete;

 private:
  sigset_t pipe_{}, before_{};
};

/// What a step of the handshake came to.
enum class Outcome { kDone, kFailed, kClosed, kLate };

template <typename Step>
Outcome drive(SSL& ssl, const Dial& dial, const Step& step) {
  for (;;) {
    const int got = step();
    if (got > 0) return Outcome::kDone;
    switch (::SSL_get_error(&ssl, got)) {
      case SSL_ERROR_WANT_READ:
        if (!dial.wait(POLLIN)) return Outcome::kLate;
        break;
      case SSL_ERROR_WANT_WRITE:
        if (!dial.wait(POLLOUT)) return Outcome::kLate;
        break;
      case SSL_ERROR_SSL:
        // An end without good-bye is an error of the protocol to OpenSSL 3.
        return ERR_GET_REASON(::ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING
                   ? Outcome::kClosed
                   : Outcome::kFailed;
      default:
        return Outcome::kClosed;
    }
  }
}

/// An identity without a certificate shows none. False when the texts hold nothing usable.
bool adopt(SSL_CTX& context, const TlsIdentity& identity) {
  const rpc::Bio certificate = rpc::memory_bio(identity.certificate);
  const rpc::Bio key = rpc::memory_bio(identity.key);
  const rpc::Bio ca = rpc::memory_bio(identity.ca);
  const rpc::Cert own(::PEM_read_bio_X509(certificate.get(), nullptr, nullptr, nullptr));
  const rpc::Key own_key(::PEM_read_bio_PrivateKey(key.get(), nullptr, nullptr, nullptr));
  if (!identity.certificate.empty() && (!own || !own_key)) return false;
  if (own) ::SSL_CTX_use_certificate(&context, own.get());
  while (X509* between = ::PEM_read_bio_X509(certificate.get(), nullptr, nullptr, nullptr))
    SSL_CTX_add_extra_chain_cert(&context, between);  // which owns it now
  if (own) ::SSL_CTX_use_PrivateKey(&context, own_key.get());
  while (X509* authority = ::PEM_read_bio_X509(ca.get(), nullptr, nullptr, nullptr)) {
    const rpc::Cert one(authority);
    ::X509_STORE_add_cert(::SSL_CTX_get_cert_store(&context), one.get());
  }
  ::ERR_clear_error();
  return true;
}

}  // namespace

std::optional<std::string> why_no_handshake(const std::string& address,
                                            const TlsIdentity* identity,
                                            std::chrono::milliseconds time) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return std::nullopt;
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  const NoPipeSignal quiet;
  const Dial dial(host, address.substr(colon + 1), Clock::now() + time);
  if (dial.fd() < 0) return std::nullopt;

  const rpc::SslContext context(::SSL_CTX_new(::TLS_client_method()));
  ::SSL_CTX_set_alpn_protos(context.get(), kHttp2, sizeof(kHttp2));
  if (identity && !adopt(*context, *identity)) return std::nullopt;
  const rpc::Ssl ssl(::SSL_new(context.get()));
  ::SSL_set_fd(ssl.get(), dial.fd());
  if (identity) {
    ::SSL_set_verify(ssl.get(), SSL_VERIFY_PEER, nullptr);
    X509_VERIFY_PARAM* wanted = ::SSL_get0_param(ssl.get());
    if (::X509_VERIFY_PARAM_set1_ip_asc(wanted, host.c_str()) != 1)
      ::X509_VERIFY_PARAM_set1_host(wanted, host.data(), host.size());
  }
  ::ERR_clear_error();
  const Outcome hello = drive(*ssl, dial, [&] { return ::SSL_connect(ssl.get()); });
  if (hello == Outcome::kFailed) {
    const long verdict = ::SSL_get_verify_result(ssl.get());
    const int reason = ERR_GET_REASON(::ERR_peek_last_error());
    const std::string error = openssl_error();
    if (!identity) {
      // Whoever answers a greeting of TLS with one of its alerts speaks it.
      if (reason == SSL_R_WRONG_VERSION_NUMBER) return std::nullopt;
    } else if (verdict != X509_V_OK) {
      return str("the server's certificate is not believed: ",
                 ::X509_verify_cert_error_string(verdict));
    } else if (reason == SSL_R_WRONG_VERSION_NUMBER) {
      return std::string("the server speaks no TLS");
    } else {
      return str("no TLS handshake: ", error);
    }
  }
  if (!identity) {
    if (hello == Outcome::kClosed || hello == Outcome::kLate) return std::nullopt;
    return std::string(
        "the server speaks TLS alone, and this process has no certificate of the run");
  }
  if (hello != Outcome::kDone) return std::nullopt;
  // A server says what it thinks of our certificate after the handshake, as we see it; one that
  // takes us begins to speak HTTP/2.
  char first = 0;
  const Outcome taken = drive(*ssl, dial, [&] { return ::SSL_read(ssl.get(), &first, 1); });
  if (taken == Outcome::kFailed)
    return str("the server does not take this process's certificate: ", openssl_error());
  if (taken == Outcome::kClosed) {
    ::ERR_clear_error();
    return std::string(
        "the server closed the connection when it had seen this process's certificate: one that "
        "has "
        "not expired and is of the server's authority is wanted (the server's log says more)");
  }
  return std::nullopt;
}

}  // namespace praetor
