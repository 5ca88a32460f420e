#include "core/model/safetensors.h"

#include <ATen/ATen.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <utility>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

using testing::TempDir;

namespace {

std::string with_length(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out + header + data;
}

/// One F32 tensor "a" of two elements, written by hand.
std::string good_header() {
  return R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
}

std::string error_of(const std::filesystem::path& file) {
  try {
    SafetensorsFile opened(file);
    for (const auto& name : opened.names()) opened.tensor(name);
  } catch (const DataError& failure) {
    return failure.what();
  }
  return "no DataError";
}

}  // namespace

TEST_CASE("a file of the reference writer is read, and written again with the same bytes",
          "[core][cpu]") {
  const auto path = testing::golden("safetensors/mixed.safetensors");
  const SafetensorsFile file(path);
  CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}});
  CHECK(file.names().size() == 13);
  std::vector<NamedTensor> all;
  for (const auto& name : file.names()) {
    const at::Tensor tensor = file.tensor(name);
    CHECK(tensor.scalar_type() == file.dtype(name));
    CHECK(tensor.sizes().vec() == file.shape(name));
    const at::Tensor counted = at::arange(tensor.numel()).remainder(name == "bool" ? 2 : 100);
    CHECK(at::equal(tensor.to(at::kLong).flatten(), counted));
    all.insert(all.begin(), {name, tensor});  // another order must not matter
  }
  CHECK(file.tensor("half").sizes().vec() == std::vector<int64_t>{2, 3});
  CHECK(file.tensor("scalar").dim() == 0);
  const TempDir dir;
  write_safetensors(dir / "again.safetensors", all, {{"format", "pt"}});
  CHECK(read_file(dir / "again.safetensors") == read_file(path));
  CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 1);
}

TEST_CASE("a view outlives the file object, and an empty file has no tensors", "[core][cpu]") {
  const TempDir dir;
  write_file_atomic(dir / "a",
                    with_length(good_header(), std::string("\0\0\x80\x3f\0\0\0\x40", 8)));
  at::Tensor view;
  {
    const SafetensorsFile file(dir / "a");
    view = file.tensor("a");
    CHECK(file.contains("a"));
    CHECK_FALSE(file.contains("b"));
    CHECK_THROWS_WITH(file.tensor("b"), Catch::Contains("has no tensor \"b\""));
  }
  CHECK(at::equal(view, at::tensor({1.0f, 2.0f})));
  write_safetensors(dir / "none", {});
  CHECK(SafetensorsFile(dir / "none").names().empty());
}

TEST_CASE("a tensor whose bytes are not aligned for its type is still read", "[core][cpu]") {
  const TempDir dir;
  const std::string header =
      R"({"u":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})";
  for (int pad = 0; pad < 4; ++pad) {
    write_file_atomic(
        dir / "a", with_length(header + std::string(pad, ' '), std::string("\7\0\0\x80\x3f", 5)));
    const at::Tensor value = SafetensorsFile(dir / "a").tensor("f");
    CHECK(value.item<float>() == 1.0f);
    CHECK(reinterpret_cast<uintptr_t>(value.const_data_ptr()) % 4 == 0);
  }
}

TEST_CASE("a hostile file is refused with the place and the reason", "[core][cpu]") {
  const auto one = [](const std::string& entry) { return "{\"a\":" + entry + "}"; };
  const std::string eight(8, '\0');
  const std::pair<std::string, std::string> table[] = {
      {"", "0 bytes, shorter than the 8"},
      {std::string("\1\0\0", 3), "3 bytes, shorter than the 8"},
      {std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), "above the limit of 100000000"},
      {std::string("\x40\0\0\0\0\0\0\0{}", 10), "runs past the end"},
      {with_length("", ""), "must begin with '{'"},
      {with_length(" {}", ""), "must begin with '{'"},
      {with_length("{", ""), "not valid JSON"},
      {with_length("{}}", ""), "not valid JSON"},
      {with_length("{\"\xff\":1}", ""), "not valid JSON"},
      {with_length("{\"a\":" + std::string(200000, '[') + "}", ""),
       "\"a\": must be an object, found an array"},
      {with_length("{\"a\":" + std::string(3, '{') + "}", ""), "not valid JSON"},
      {with_length(one(R"({"dtype":{"x":1}})"), ""),
       "\"dtype\" has the wrong type: found an object"},
      {with_length(one("7"), ""), "must be an object, found a number"},
      {with_length(one("null"), ""), "must be an object, found null"},
      {with_length(one(R"({"dtype":"F32","shape":[2]})"), eight), "has no \"data_offsets\""},
      {with_length(one(R"({"shape":[2],"data_offsets":[0,8]})"), eight), "has no \"dtype\""},
      {with_length(one(R"({"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]})"), eight),
       "\"F8_E4M3\" is not one of"},
      {with_length(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0]})"), eight),
       "must be [begin, end]"},
      {with_length(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,8]})"), eight),
       "more than two numbers"},
      {with_length(one(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), eight),
       "found a negative number"},
      {with_length(one(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), eight),
       "not a whole one"},
      {with_length(one(R"({"dtype":"F32","shape":[[2]],"data_offsets":[0,8]})"), eight),
       "found an array"},
      {with_length(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1})"), eight),
       "unknown key \"x\""},
      {with_length(one(R"({"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})"), eight),
       "appears twice"},
      {with_length(one(R"({"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8]})"),
                   eight),
       "dimension"},
      {with_length(one(R"({"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]})"),
                   eight),
       "below 2^64"},
      {with_length(one(R"({"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]})"),
                   ""),
       "too large"},
      {with_length(one(R"({"dtype":"F32","shape":[4611686018427387904,0],"data_offsets":[0,0]})"),
                   ""),
       "too large"},
      {with_length(
           one(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]})"),
           "1234"),
       "more than 32 dimensions"},
      {with_length(one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"), eight),
       "takes 12 bytes, data_offsets span 8"},
      {with_length(one(R"({"dtype":"F32","shape":[2],"data_offsets":[8,16]})"), eight),
       "do not lie in the file's 8 bytes"},
      {with_length(one(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"), eight),
       "do not lie in the file's 8 bytes"},
      {with_length(one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})"), eight),
       "leaving a hole after byte 0"},
      {with_length(good_header(), eight + "x"), "tensors end at byte 8 of 9 bytes"},
      {with_length(
           R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
           eight),
       "\"a\": appears twice"},
      {with_length(
           R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
           eight),
       "\"b\" begins at byte 4, inside the tensor before it"},
      {with_length(R"({"__metadata__":{"k":1}})", ""),
       "\"__metadata__\": key \"k\" has the wrong type"},
      {with_length(R"({"__metadata__":{},"__metadata__":{}})", ""),
       "\"__metadata__\": appears twice"},
      {with_length(one(R"({"dtype":"BOOL","shape":[2],"data_offsets":[0,2]})"), "\1\2"),
       "BOOL byte 1 is 2"},
  };
  const TempDir dir;
  for (const auto& [bytes, message] : table) {
    write_file_atomic(dir / "bad.safetensors", bytes);
    CHECK_THAT(error_of(dir / "bad.safetensors"),
               Catch::Contains("bad.safetensors: ") && Catch::Contains(message));
  }
  CHECK_THROWS_AS(SafetensorsFile(dir / "absent"), MissingInput);
}

TEST_CASE("every cut of a good file is refused", "[core][cpu]") {
  const TempDir dir;
  const std::string whole = with_length(good_header(), std::string(8, '\0'));
  for (size_t size = 0; size < whole.size(); ++size) {
    write_file_atomic(dir / "cut", whole.substr(0, size));
    CHECK_THROWS_AS(SafetensorsFile(dir / "cut"), DataError);
  }
  write_file_atomic(dir / "cut", whole);
  CHECK_NOTHROW(SafetensorsFile(dir / "cut"));
}

TEST_CASE("a folder of shards is read through its index, which cannot lead outside",
          "[core][cpu]") {
  const TempDir dir;
  CHECK_THROWS_AS(SafetensorsFolder(dir.path()), MissingInput);
  write_safetensors(dir / "one.safetensors",
                    std::vector<NamedTensor>{{"a", at::ones({2})}, {"c", at::ones({1})}});
  write_safetensors(dir / "two.safetensors", std::vector<NamedTensor>{{"b", at::zeros({3})}});
  const auto index = [&](const std::string& text) {
    write_file_atomic(dir / "model.safetensors.index.json", text);
  };
  index(
      R"({"metadata":{},"weight_map":{"a":"one.safetensors","b":"two.safetensors","c":"one.safetensors"}})");
  const SafetensorsFolder folder(dir.path());
  CHECK(folder.names() == std::vector<std::string>{"a", "b", "c"});
  CHECK(at::equal(folder.tensor("b"), at::zeros({3})));
  CHECK(folder.file("c").path().filename() == "one.safetensors");
  CHECK_THROWS_AS(folder.tensor("d"), DataError);

  index(R"({"weight_map":{"a":"two.safetensors"}})");
  CHECK_THROWS_WITH(SafetensorsFolder(dir.path()),
                    Catch::Contains("two.safetensors: has no tensor \"a\""));
  for (const char* escape : {"../one.safetensors",
                             "/etc/passwd",
                             "..",
                             ".",
                             "",
                             "x/one.safetensors",
                             "a\\\\b",
                             "a\\u0000"}) {
    index(std::string(R"({"weight_map":{"a":")") + escape + "\"}}");
    CHECK_THROWS_WITH(SafetensorsFolder(dir.path()),
                      Catch::Contains("must be the name of a file in the same folder"));
  }
  index(R"({"weight_map":{"a":"three.safetensors"}})");
  CHECK_THROWS_AS(SafetensorsFolder(dir.path()), MissingInput);
  index(R"({"weight_map":{"a":"one.safetensors","a":"two.safetensors"}})");
  CHECK_THROWS_WITH(SafetensorsFolder(dir.path()), Catch::Contains("key \"a\" appears twice"));
  index(R"({"weight_map":{"a":1}})");
  CHECK_THROWS_WITH(SafetensorsFolder(dir.path()),
                    Catch::Contains("weight_map.a must be a file name"));
  index(R"([])");
  CHECK_THROWS_WITH(SafetensorsFolder(dir.path()), Catch::Contains("has no object \"weight_map\""));
  index(std::string(100000, '['));
  CHECK_THROWS_AS(SafetensorsFolder(dir.path()), DataError);
}

TEST_CASE("what cannot be written is refused before the file is touched", "[core][cpu]") {
  const TempDir dir;
  write_safetensors(dir / "a",
                    std::vector<NamedTensor>{{"x", at::ones({2, 3}).t()}});  // not contiguous
  CHECK(at::equal(SafetensorsFile(dir / "a").tensor("x"), at::ones({3, 2})));
  const std::string before = read_file(dir / "a");
  const auto write = [&](std::vector<NamedTensor> tensors) {
    write_safetensors(dir / "a", tensors);
  };
  CHECK_THROWS_AS(write({{"x", at::ones({1})}, {"x", at::ones({1}, at::kLong)}}), InvalidArgument);
  CHECK_THROWS_AS(write({{"__metadata__", at::ones({1})}}), InvalidArgument);
  CHECK_THROWS_AS(write({{"\xff", at::ones({1})}}), InvalidArgument);
  CHECK_THROWS_AS(write({{"x", at::Tensor()}}), InvalidArgument);
  CHECK_THROWS_AS(write({{"x", at::ones({1}, at::kComplexFloat)}}), InvalidArgument);
  CHECK(read_file(dir / "a") == before);
  CHECK_THROWS_AS(write_safetensors(dir / "none" / "a", {}), IoError);
}

}  // namespace praetor
