// The same signals for every lane, each a cycle after the lane before it.
module lane_skew #(
    parameter LANES = 4,
    parameter BITS = 1
) (
    // One lane has nothing to clock.
    /* verilator lint_off UNUSED */
    input  wire                  clock,
    input  wire                  reset,
    /* verilator lint_on UNUSED */
    input  wire [BITS-1:0]       head,
    output wire [LANES*BITS-1:0] lanes
);
    genvar i;
    generate
        for (i = 0; i < LANES; i = i + 1) begin : lane
            if (i == 0) begin : first
                assign lanes[0 +: BITS] = head;
            end else begin : later
                reg [BITS-1:0] held;
                always @(posedge clock)
                    if (reset) held <= {BITS{1'b0}};
                    else held <= lanes[(i-1)*BITS +: BITS];
                assign lanes[i*BITS +: BITS] = held;
            end
        end
    endgenerate
endmodule
