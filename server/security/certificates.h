// Certificates and keys of TLS, read from files and checked before anybody uses them.
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

namespace ess::security {

// Paths of PEM files, as configured.
struct CertificateFiles {
  std::filesystem::path certificate;  // The server's, then those that signed it (tls_certificate).
  std::filesystem::path key;          // Its private key, not encrypted (tls_key).
  std::filesystem::path client_ca;    // Who signs clients' certificates (tls_client_ca). "": none.
};

struct Certificates {
  std::string identity;   // PEM: the certificates of the server, then their key.
  std::string client_ca;  // PEM; "": none.
  std::string summary;    // For the log: whose, until when.
};

// Reads and checks them: everything parses, the key is the first certificate's, and that one is
// valid now.
// Errors: kInvalidArgument  names the field and the file. Never what is in a key.
absl::StatusOr<Certificates> ReadCertificates(const CertificateFiles& files);

}  // namespace ess::security
