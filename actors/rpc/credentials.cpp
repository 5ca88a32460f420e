#include "actors/rpc/credentials.h"

namespace praetor::rpc {

std::shared_ptr<grpc::ServerCredentials> server_credentials(const TlsIdentity* identity) {
  if (!identity) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions options(
      GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = identity->ca;
  options.pem_key_cert_pairs.push_back({identity->key, identity->certificate});
  return grpc::SslServerCredentials(options);
}

std::shared_ptr<grpc::ChannelCredentials> channel_credentials(const TlsIdentity* identity) {
  if (!identity) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = identity->ca;
  options.pem_private_key = identity->key;
  options.pem_cert_chain = identity->certificate;
  return grpc::SslCredentials(options);
}

}  // namespace praetor::rpc
