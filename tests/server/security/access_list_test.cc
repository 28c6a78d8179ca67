#include "server/security/access_list.h"

#include <string>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace ess::security {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// SHA-256 of "secret".
constexpr char kSecretHash[] = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

AccessList Parsed(const std::string& text) {
  absl::StatusOr<AccessList> list = AccessList::Parse(text);
  EXPECT_THAT(list, IsOk());
  return list.ok() ? *std::move(list) : AccessList();
}

absl::Status ErrorOf(const std::string& text) { return AccessList::Parse(text).status(); }

TEST(AccessListTest, ATokenIsFoundByItsHash) {
  const AccessList list = Parsed(fmt::format("# who\n\n  alice\tuser  sha256:{}\r\n", kSecretHash));

  const std::optional<Caller> caller = list.FindToken("secret");

  ASSERT_TRUE(caller.has_value());
  EXPECT_EQ(caller->name, "alice");
  EXPECT_EQ(caller->role, Role::kUser);
  for (const std::string& other : {std::string("secre"), std::string("secret "), std::string(),
                                   std::string("SECRET"), std::string(kSecretHash)}) {
    EXPECT_FALSE(list.FindToken(other).has_value()) << other;
  }
}

TEST(AccessListTest, ACertificateIsFoundByItsNameOnly) {
  const AccessList list = Parsed("spiffe://team/ci viewer certificate\n");

  const std::optional<Caller> caller = list.FindCertificate("spiffe://team/ci");

  ASSERT_TRUE(caller.has_value());
  EXPECT_EQ(caller->role, Role::kViewer);
  EXPECT_FALSE(list.FindCertificate("spiffe://team").has_value());
  EXPECT_FALSE(list.FindToken("spiffe://team/ci").has_value());
}

TEST(AccessListTest, ALineForANewTokenIsReadBack) {
  const std::string token = NewToken();
  const AccessList list = Parsed(AccessLine({.name = "bob", .role = Role::kAdmin}, token));

  EXPECT_EQ(list.FindToken(token)->name, "bob");
  EXPECT_EQ(list.FindToken(token)->role, Role::kAdmin);
}

TEST(AccessListTest, NewTokensDifferAndHold256Bits) {
  const std::string token = NewToken();

  EXPECT_NE(token, NewToken());
  EXPECT_EQ(token.size(), 4 + 43u);  // 43 characters of 6 bits.
}

TEST(AccessListTest, ACallerMayHaveTwoTokensAndACertificate) {
  const AccessList list = Parsed(
      fmt::format("a user sha256:{}\na user sha256:{:064d}\na user certificate\n", kSecretHash, 0));

  EXPECT_EQ(list.size(), 3u);
}

TEST(AccessListTest, AnErrorNamesTheLineAndNeverASecret) {
  const std::string token = NewToken();
  const std::string good = fmt::format("a user sha256:{}\n", kSecretHash);
  const std::pair<std::string, const char*> cases[] = {
      {"a user", "line 1: 2 words"},
      {good + "b user sha256:" + kSecretHash, "line 2: the token has an earlier line"},
      {good + "a admin certificate", "line 2: 'a' has the role user in an earlier line"},
      {"a user certificate\na user certificate", "line 2: 'a' has a line with a certificate"},
      {"a root sha256:" + std::string(kSecretHash), "line 1: the second word is none of"},
      {"a " + token + " user", "line 1: the second word is none of"},
      {"a user " + token, "line 1: the third word is neither"},
      {"a user sha256:12", "line 1: the third word is neither"},
      {"a user sha256:" + std::string(64, 'g'), "line 1: the third word is neither"},
      {"a user sha256:" + std::string(65, '0'), "line 1: the third word is neither"},
      {"\xc3\xa4 user certificate", "line 1: the name must be"},
      {std::string(129, 'a') + " user certificate", "at most 128"},
      {std::string(AccessList::kMaxBytes + 1, '#'), "1048577 bytes; the limit is 1048576"},
  };
  for (const auto& [text, message] : cases) {
    EXPECT_THAT(ErrorOf(text), StatusIs(absl::StatusCode::kInvalidArgument,
                                        AllOf(HasSubstr(message), Not(HasSubstr(kSecretHash)),
                                              Not(HasSubstr(token)))))
        << text.substr(0, 200);
  }
}

TEST(AccessListTest, MoreCallersThanTheLimitAreRefused) {
  std::string text;
  for (size_t i = 0; i < AccessList::kMaxCallers; ++i)
    text += fmt::format("n{} user certificate\n", i);

  EXPECT_EQ(Parsed(text).size(), AccessList::kMaxCallers);
  EXPECT_THAT(ErrorOf(text + "one-more user certificate"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("4096")));
}

TEST(AccessListTest, AnEmptyListKnowsNobody) { EXPECT_FALSE(Parsed("").FindToken("").has_value()); }

}  // namespace
}  // namespace ess::security
