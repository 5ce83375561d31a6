//  files.h - the file sink: image files below allowed folders, published once
//
//  ROOTS. Files are written below the output roots only. A job's folder is resolved
//  (symlinks followed as far as it exists), must then lie in a root, and is opened
//  from that root part by part without following symlinks, so that a link put there
//  meanwhile is refused. With one root inside another, the inner one counts.
//  `<root>/.luna` and names that begin with `.luna-` are the sink's own.
//
//  FILES. For the image (J, I, N) of job J, in its target folder D:
//      part    D/.luna-J-I-N.<random>.part   one attempt's private copy
//      anchor  D/.luna-J-I-N.tmp             the copy that is going to be published
//      final   D/<name>                      what people see
//  and in the root's folder `.luna/J`:
//      mark    I-N.<random>.try              an attempt is, or was, under way
//      record  I-N                           the image is published: where, and what
//  and `.luna/lock`, by which a sweep knows the attempts that live (hold.h).
//
//  PUBLISHING
//   1. A valid record (its file exists with that size and hash): return it.
//   2. Hold the image, until the end. Create the mark.
//   3. Create the part; if the mark is gone, begin again, the image is done. Reserve the
//      space, write, fdatasync.
//   4. link(part, anchor), which never replaces. The first attempt wins: its part is
//      from now on the token of the image. A loser removes its own part and goes on
//      with the winner's anchor and token.
//   5. Look for a valid record again; if there is one, clean up and return it.
//   6. Move the token to its final name: renameat2(RENAME_NOREPLACE) to a candidate that
//      was free a moment ago, and on to the next ones until that succeeds. Who is not the
//      winner finds the token, or the final name, by the anchor's inode in the folder.
//      Then the sidecar, if there is one (sidecar.h).
//   7. fsync D, write the record (temporary name, fdatasync, rename, fsync).
//   8. Remove the anchor, then the mark; if there are other marks of this image, whose
//      attempts are at work or have died, remove every part and mark of it. Step 1 does
//      the same for attempts that died late or were overtaken.
//
//  WHY IT HOLDS
//  - Whole: a final name is only ever given to a file that was fdatasync'ed.
//  - Never overwriting: part and anchor are exclusive, the move does not replace.
//  - At most once: an anchor is removed only while a valid record exists. So whoever
//    holds an anchor and then (step 5) finds no record holds the first and only
//    anchor. Its inode has one name besides the anchor, the token, and a rename moves
//    a name: however many attempts try, the file gets one final name, and the later
//    ones find it by inode.
//  - At least once: each step leaves enough behind for a later attempt to go on from:
//    no anchor, start again; anchor and token, step 6; anchor and final, step 7;
//    record, done. Nothing waits for another attempt, so one that hangs or is dead
//    blocks nobody: attempts share their hold, and it ends with its process.
//  - A sweep takes back what dead attempts left of an image that has no name yet. It
//    holds the image alone meanwhile: no attempt is under way, and none begins.
//  - An anchor whose token and final name are both gone (somebody deleted the picture
//    before its record was written) is published again: a deleted picture that comes
//    back costs less than a lost one.
//  - What still goes wrong: a picture moved to another folder before its record was
//    written is published again; so is one of a job whose output folder resolves
//    elsewhere at its next attempt. On file systems without RENAME_NOREPLACE (NFS)
//    step 6 is link and unlink: two attempts at the same moment, while a stranger
//    deletes the file that held an earlier candidate name, can give two names. On those
//    that keep locks to one host, an attempt at an image that begins on another host in
//    the moment in which a sweep takes it back can be made to begin again.

#ifndef LUNA_SINK_FILES_H
#define LUNA_SINK_FILES_H

#include "decoder/sink/access.h"
#include "decoder/sink/sink.h"

typedef struct luna_files_options {
    const char *const *roots;  //  the allowed folders, the default one first; copied
    size_t count;              //  at least 1
    luna_access access;        //  of pictures, sidecars and the folders they are in
    //  Test hook, else NULL: called before each step; an errno value other than 0
    //  becomes that step's failure.
    int (*before)(void *arg, const char *step);
    void *arg;
} luna_files_options;

//  Opens the file sink; roots that do not exist are made. *out is the caller's to end
//  with luna_sink_close; set on success only.
//  LUNA_CONFIG: no root. LUNA_CANT_CREATE: a root cannot be made or written in.
//
//  luna_sink_put on it fails with
//    LUNA_FORBIDDEN    the folder is outside the roots, is in `.luna`, has a ".."
//    LUNA_CANT_CREATE  a folder or file cannot be made, or not with that access
//    LUNA_NO_SPACE     the disk or the quota is full
//    LUNA_EXISTS       every candidate name is taken
//    LUNA_BAD_REQUEST  an empty image, a relative output_dir, control characters in it
//    LUNA_TOO_LARGE    the path is too long
//    LUNA_IO           anything else, named
//  and leaves no part behind; an anchor stays for the next attempt to go on from.
//  Cost: three fdatasync and two fsync of folders; hashes the bytes once.
LUNA_MUST_USE luna_err luna_files_open(const luna_files_options *options,
                                       luna_sink **out);

#endif
