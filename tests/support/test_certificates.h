// Certificates for tests, made when they run.
#pragma once

#include <string>

namespace ess::testing {

struct TestCertificate {
  std::string certificate;  // PEM
  std::string key;          // PEM
};

// Self-signed, with a new P-256 key, valid from now + `begin_seconds` to now + `end_seconds`.
TestCertificate MakeCertificate(const std::string& name, long begin_seconds = -60,
                                long end_seconds = 3600);

// `key`, encrypted with a password.
std::string EncryptKey(const std::string& key);

}  // namespace ess::testing
