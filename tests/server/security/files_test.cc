// Files that are replaced while somebody uses them: the access file and the certificates.
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/time/clock.h"
#include "fmt/format.h"
#include "gtest/gtest.h"
#include "server/security/access_file.h"
#include "server/security/live_certificates.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_certificates.h"

namespace ess::security {
namespace {

using ::ess::testing::EncryptKey;
using ::ess::testing::IsOk;
using ::ess::testing::MakeCertificate;
using ::ess::testing::StatusIs;
using ::ess::testing::TestCertificate;
using ::testing::HasSubstr;

constexpr absl::Duration kInterval = absl::Milliseconds(5);

bool Within10Seconds(auto condition) {
  const absl::Time end = absl::Now() + absl::Seconds(10);
  while (!condition()) {
    if (absl::Now() > end) return false;
    absl::SleepFor(kInterval);
  }
  return true;
}

// For as long as a watch takes to look many times.
bool Stays(auto condition) {
  const absl::Time end = absl::Now() + 20 * kInterval;
  while (absl::Now() < end) {
    if (!condition()) return false;
    absl::SleepFor(kInterval);
  }
  return true;
}

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

class FilesTest : public ::testing::Test {
 protected:
  FilesTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "security.XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~FilesTest() override { std::filesystem::remove_all(folder_); }

  // In place, as `cp` does.
  std::filesystem::path Write(const std::string& name, const std::string& text) {
    const std::filesystem::path path = folder_ / name;
    std::ofstream(path) << text;
    chmod(path.c_str(), 0600);
    return path;
  }

  CertificateFiles WriteCertificate(const TestCertificate& made) {
    return {.certificate = Write("cert.pem", made.certificate),
            .key = Write("key.pem", made.key),
            .client_ca = ""};
  }

  std::filesystem::path folder_;
};

using AccessFileTest = FilesTest;
using CertificatesTest = FilesTest;

TEST_F(AccessFileTest, AChangeIsSeenAndAFileRenamedIntoPlaceToo) {
  const auto path = Write("access", AccessLine({.name = "a", .role = Role::kUser}, "one"));
  const auto file = AccessFile::Open(path, kInterval);
  ASSERT_THAT(file, IsOk());
  EXPECT_TRUE((*file)->list()->FindToken("one").has_value());

  Write("access", AccessLine({.name = "a", .role = Role::kUser}, "two"));
  EXPECT_TRUE(Within10Seconds([&] { return (*file)->list()->FindToken("two").has_value(); }));
  EXPECT_FALSE((*file)->list()->FindToken("one").has_value());

  std::filesystem::rename(Write("new", AccessLine({.name = "a", .role = Role::kUser}, "three")),
                          path);
  EXPECT_TRUE(Within10Seconds([&] { return (*file)->list()->FindToken("three").has_value(); }));
}

TEST_F(AccessFileTest, ABrokenOrMissingReplacementKeepsTheListBefore) {
  const auto path = Write("access", AccessLine({.name = "a", .role = Role::kUser}, "one"));
  const auto file = AccessFile::Open(path, kInterval);
  ASSERT_THAT(file, IsOk());

  Write("access", "a user nonsense");
  EXPECT_TRUE(Stays([&] { return (*file)->list()->FindToken("one").has_value(); }));
  std::filesystem::remove(path);
  EXPECT_TRUE(Stays([&] { return (*file)->list()->FindToken("one").has_value(); }));

  Write("access", AccessLine({.name = "a", .role = Role::kUser}, "two"));
  EXPECT_TRUE(Within10Seconds([&] { return (*file)->list()->FindToken("two").has_value(); }));
}

TEST_F(AccessFileTest, AFileThatCannotBeUsedIsRefusedAtTheStart) {
  const auto code = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(AccessFile::Open(folder_ / "none", kInterval).status(),
              StatusIs(code, HasSubstr("access_file: cannot read")));
  EXPECT_THAT(AccessFile::Open(folder_, kInterval).status(),
              StatusIs(code, HasSubstr("not a file")));
  EXPECT_THAT(AccessFile::Open(Write("access", "\nx"), kInterval).status(),
              StatusIs(code, HasSubstr("line 2")));
  EXPECT_THAT(AccessFile::Open(Write("empty", "# Nobody.\n"), kInterval).status(),
              StatusIs(code, HasSubstr("no callers")));
  const auto writable = Write("writable", "");
  chmod(writable.c_str(), 0620);
  EXPECT_THAT(AccessFile::Open(writable, kInterval).status(),
              StatusIs(code, HasSubstr("written by others")));
}

TEST_F(CertificatesTest, AGoodPairIsReadAndNamed) {
  const auto read = ReadCertificates(WriteCertificate(MakeCertificate("server.test")));

  ASSERT_THAT(read, IsOk());
  EXPECT_THAT(read->summary, HasSubstr("CN=server.test, valid until "));
  EXPECT_THAT(read->identity, HasSubstr("PRIVATE KEY"));
}

TEST_F(CertificatesTest, EachKindOfBrokenFileIsRefusedByName) {
  const TestCertificate good = MakeCertificate("a");
  const TestCertificate other = MakeCertificate("b");
  const TestCertificate expired = MakeCertificate("c", -7200, -3600);
  const TestCertificate early = MakeCertificate("d", 3600, 7200);
  const std::string half = good.certificate.substr(0, good.certificate.size() / 2);
  const std::pair<TestCertificate, const char*> cases[] = {
      {{"", good.key}, "tls_certificate"},
      {{"no PEM", good.key}, "holds no certificates"},
      {{half, good.key}, "holds no certificates"},
      {{good.certificate + half, good.key}, "holds no certificates"},
      {{good.certificate, ""}, "tls_key"},
      {{good.certificate, good.certificate}, "holds no private key"},
      {{good.certificate, EncryptKey(good.key)}, "without a password"},
      {{good.certificate, other.key}, "is not the key of the first certificate"},
      {expired, "has expired on"},
      {early, "is not valid before"},
  };
  for (const auto& [made, message] : cases) {
    EXPECT_THAT(ReadCertificates(WriteCertificate(made)).status(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
  }
  CertificateFiles files = WriteCertificate(good);
  files.client_ca = Write("ca.pem", "no PEM");
  EXPECT_THAT(ReadCertificates(files).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tls_client_ca")));
  files.key = folder_ / "none";
  EXPECT_THAT(ReadCertificates(files).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tls_key: cannot read")));
}

TEST_F(CertificatesTest, ReplacedFilesAreTakenWholeAndBrokenOnesNever) {
  const TestCertificate first = MakeCertificate("first");
  const TestCertificate second = MakeCertificate("second");
  const auto live = LiveCertificates::Open(WriteCertificate(first), kInterval);
  ASSERT_THAT(live, IsOk());
  const std::string path = (*live)->identity_path();
  const std::string before = ReadFile(path);
  EXPECT_EQ(before, first.certificate + "\n" + first.key);

  Write("cert.pem", second.certificate);  // Not with this key.
  EXPECT_TRUE(Stays([&] { return ReadFile(path) == before; }));

  Write("key.pem", second.key);
  EXPECT_TRUE(
      Within10Seconds([&] { return ReadFile(path) == second.certificate + "\n" + second.key; }));
  EXPECT_EQ((*live)->identity_path(), path);
}

}  // namespace
}  // namespace ess::security
