#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace praetor {

/// Names that a checkpoint has only while it is made or removed; nobody takes such a folder for
/// one.
constexpr const char* kTemporaryPrefix = ".making-";
constexpr const char* kTrashPrefix = ".removing-";

/// RUN_DIR/checkpoints/STAGE/step-000100
std::filesystem::path checkpoint_folder(const std::filesystem::path& run_dir,
                                        std::string_view stage,
                                        int64_t step);

constexpr const char* kLatest = "latest";
constexpr const char* kBest = "best";
/// Replaces RUN_DIR/`link`, a relative symbolic link, in one step. @throws IoError
void point_at(const std::filesystem::path& run_dir,
              const char* link,
              const std::filesystem::path& checkpoint);

}  // namespace praetor
