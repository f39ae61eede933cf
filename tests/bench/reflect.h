/* What reflect.bpf.c and reflect.c share: how latencies are counted. */
#pragma once

#define REFLECT_BUCKET_SHIFT 10	   /* a bucket is 1.024 us wide */
#define REFLECT_BUCKETS	     32768 /* to 33 ms; what is longer is in the last */
